"""Bytes in motion: bulk both ways, tiny writes, slow readers, fairness, urgent data, no Nagle stall, no spin."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import socket
import struct
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from data_plane import DataPlane, RealPort, borrow_fd
from servers import read_all
from waiting import cpu_seconds, fd_census, wait_for

from lbfast.model.state import EventKind

SIOCOUTQ = 0x5411
LONELY = 54_017  # a user that nobody else is
MEGABYTE = 1 << 20


def send_and_hash(sock: socket.socket, size: int, seed: int, sent: list[str]) -> None:
    rng, digest = random.Random(seed), hashlib.sha256()
    while size > 0:
        part = rng.randbytes(min(size, MEGABYTE))
        digest.update(part)
        sock.sendall(part)
        size -= len(part)
    sock.shutdown(socket.SHUT_WR)
    sent.append(digest.hexdigest())


def read_and_hash(sock: socket.socket) -> str:
    digest = hashlib.sha256()
    while data := sock.recv(MEGABYTE):
        digest.update(data)
    return digest.hexdigest()


@pytest.mark.parametrize("max_pipes", [0, 8])
def test_bulk_both_ways_at_once(max_pipes: int) -> None:
    """64 MB each way (16 MB when all is copied for want of pipes), hashes right."""
    size = (64 if max_pipes == 8 else 16) * MEGABYTE
    with RealPort() as real, DataPlane([real], max_pipes=max_pipes) as plane:
        client, server = plane.pair()
        sent: dict[str, list[str]] = {"client": [], "server": []}
        got: list[str] = []
        threads = [
            threading.Thread(target=send_and_hash, args=(client, size, 1, sent["client"])),
            threading.Thread(target=send_and_hash, args=(server, size, 2, sent["server"])),
            threading.Thread(target=lambda: got.append(read_and_hash(server))),
        ]
        for thread in threads:
            thread.start()
        seen_by_client = read_and_hash(client)
        for thread in threads:
            thread.join()
        assert [seen_by_client] == sent["server"]
        assert got == sent["client"]
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert (event["bytes_in"], event["bytes_out"]) == (size, size)
        copied, spliced = plane.total("copied_bytes"), plane.total("spliced_bytes")
        assert copied + spliced == 2 * size
        if max_pipes == 8:
            assert spliced > size  # bulk goes through pipes
        else:
            assert (spliced, plane.total("no_pipes") > 0) == (0, True)


def test_one_direction_copies_while_the_other_has_the_only_pipe() -> None:
    size = 16 * MEGABYTE
    with RealPort() as real, DataPlane([real], max_pipes=1) as plane:
        client, server = plane.pair()
        down: list[str] = []
        up: list[str] = []
        got: list[str] = []
        threads = [
            threading.Thread(target=send_and_hash, args=(server, size, 2, down)),
            threading.Thread(target=send_and_hash, args=(client, size, 1, up)),
            threading.Thread(target=lambda: got.append(read_and_hash(server))),
        ]
        threads[0].start()  # to a client that does not read yet: the pipe fills, and is kept
        wait_for(lambda: in_pipes(plane.pids[0]) > 0, what="bytes in the pipe")
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: plane.total("no_pipes") > 0, what="the other direction to miss a pipe")
        seen_by_client = read_and_hash(client)
        for thread in threads:
            thread.join()
        assert ([seen_by_client], got) == (down, up)
        copied, spliced = plane.total("copied_bytes"), plane.total("spliced_bytes")
        assert copied + spliced == 2 * size
        assert copied > 0
        assert spliced > 0


def be_a_user_without_pipe_pages() -> None:
    """A user of our own, whose share of pipe memory is taken: the kernel gives it pipes of two pages from now on."""
    os.setgroups([])
    os.setresgid(LONELY, LONELY, LONELY)
    os.setresuid(LONELY, LONELY, LONELY)
    size = MEGABYTE
    while size > 8_192:
        _, end = os.pipe()
        try:
            size = fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, size)
        except PermissionError:
            size //= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.skipif(Path("/proc/sys/fs/pipe-user-pages-soft").read_text() == "0\n", reason="no limit on pipe pages")
def test_a_pipe_too_small_to_be_worth_it_is_not_used() -> None:
    size = 8 * MEGABYTE
    with RealPort() as real, DataPlane([real], prepare=be_a_user_without_pipe_pages) as plane:
        client, server = plane.pair()
        sent: list[str] = []
        thread = threading.Thread(target=send_and_hash, args=(server, size, 3, sent))
        thread.start()
        seen = read_and_hash(client)
        thread.join()
        assert [seen] == sent
        assert plane.total("no_pipes") > 0
        assert (plane.total("spliced_bytes"), plane.total("copied_bytes")) == (0, size)


def test_many_tiny_writes_and_reads() -> None:
    data = os.urandom(3_000)
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            client.send(bytes([byte]))
        client.send(b"")
        client.shutdown(socket.SHUT_WR)
        received = bytearray()
        while byte_read := server.recv(1):
            received += byte_read
        assert received == data


def test_tiny_segments_while_splicing() -> None:
    """A pipe runs out of places long before bytes: 3-byte segments in a direction that splices."""
    start, tail = os.urandom(MEGABYTE), os.urandom(3 * 5_000)
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def speak() -> None:
            client.sendall(start)
            for at in range(0, len(tail), 3):
                client.send(tail[at : at + 3])
            client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=speak)
        thread.start()
        assert read_all(server) == start + tail
        thread.join()
        assert plane.total("spliced_bytes") > 0


def test_small_segment_size() -> None:
    """MSS 536 and a small window on the client's side."""
    data = os.urandom(300_000)
    with RealPort() as real, DataPlane([real]) as plane:
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(10)
        with client:
            client.connect(("127.0.0.1", plane.port))
            server = plane.accept()
            thread = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
            thread.start()
            assert read_all(server) == data
            thread.join()
            thread = threading.Thread(target=lambda: (server.sendall(data), server.shutdown(socket.SHUT_WR)))
            thread.start()
            assert read_all(client) == data
            thread.join()


def test_nagle_is_off_before_it_can_stall() -> None:
    """write-write-read: from the second small write on a side has TCP_NODELAY; the client's side always has."""
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        for number in range(2):
            client.sendall(b"one")
            assert server.recv(10) == b"one"
            server.sendall(b"two")
            assert client.recv(10) == b"two"
            client_side, server_side = plane.borrow()
            options = [s[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in (client_side, server_side)]
            for sock in client_side + server_side:
                sock.close()
            assert options == [1, number]


def test_nothing_waits_behind_a_proxy_header() -> None:
    """The header is the first small write: what follows it must not wait for its acknowledgement."""
    with RealPort() as real, DataPlane([real], send_proxy=1) as plane:
        client, server = plane.pair()
        assert server.recv(107).startswith(b"PROXY TCP4 ")
        client.sendall(b"request")
        assert server.recv(10) == b"request"
        client_side, server_side = plane.borrow()
        option = server_side[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for sock in client_side + server_side:
            sock.close()
        assert option == 1


def queued(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, request, b"\0\0\0\0"))[0])


def in_pipes(pid: int) -> int:
    """Bytes in all pipes of a process."""
    ends: dict[str, int] = {}
    for fd, target in fd_census(pid).items():
        if target.startswith("pipe:") and fd > 2 and target not in ends:
            copy = borrow_fd(pid, fd)
            ends[target] = int(struct.unpack("i", fcntl.ioctl(copy, termios.FIONREAD, b"\0\0\0\0"))[0])
            os.close(copy)
    return sum(ends.values())


def fill(sock: socket.socket, plane: DataPlane) -> int:
    """Send until nothing moves any more; bytes sent.

    A full socket alone does not say so: the worker may come late, and the kernel acknowledge late.
    """
    sock.setblocking(False)
    sent, still = 0, 0
    state: tuple[int, ...] = ()
    part = os.urandom(65_536)
    while still < 3:
        with suppress(BlockingIOError):
            while True:
                sent += sock.send(part)
        turns, start = plane.total("loops"), time.monotonic()
        wait_for(lambda: plane.total("loops") > turns + 1)  # noqa: B023
        has_slept = time.monotonic() - start > 0.09  # of the 0.1 s that a worker sleeps when nothing wakes it
        before = state
        state = (sent, queued(sock, SIOCOUTQ), plane.total("copied_bytes"), plane.total("spliced_bytes"))
        still = still + 1 if has_slept and state == before else 0
    return sent


@pytest.mark.parametrize("max_pipes", [0, 8])
def test_slow_reader_holds_one_pipe_or_block_and_costs_nothing(max_pipes: int) -> None:
    with RealPort() as real, DataPlane([real], max_pipes=max_pipes, pipe_size=131_072) as plane:
        client, server = plane.pair()
        sent = fill(client, plane)
        client_side, server_side = plane.borrow()
        unread = queued(client_side[0], termios.FIONREAD)
        for sock in client_side + server_side:
            sock.close()
        (record,) = plane.slabs[0].connections()
        held = sent - queued(client, SIOCOUTQ) - unread - record["bytes_in"]
        assert 0 < held <= (131_072 if max_pipes else 32_768)
        if max_pipes:
            assert held == in_pipes(plane.pids[0])
        assert (plane.total("pipes"), plane.total("blocks")) == ((1, 0) if max_pipes else (0, 1))
        check_rests(plane)
        client.settimeout(10)
        threading.Thread(target=client.shutdown, args=(socket.SHUT_WR,)).start()
        assert len(read_all(server)) == sent


def check_rests(plane: DataPlane, seconds: float = 0.5) -> None:
    """The worker's loop turns ten times a second and uses no CPU."""
    start = time.monotonic()
    loops, cpu = plane.total("loops"), cpu_seconds(plane.pids[0])
    wait_for(lambda: time.monotonic() - start > seconds)
    turned, used = plane.total("loops") - loops, cpu_seconds(plane.pids[0]) - cpu
    passed = time.monotonic() - start
    assert turned <= 30 * passed
    assert used <= 0.1 * passed


@pytest.mark.parametrize("closes", [False, True])
def test_half_closed_and_blocked_costs_nothing(closes: bool) -> None:
    """FIN known and bytes in the pipe: both conditions stay true for as long as the reader sleeps."""
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        sent = fill(client, plane)
        if closes:
            client.shutdown(socket.SHUT_WR)
        server.shutdown(socket.SHUT_WR)
        client.settimeout(10)
        assert client.recv(1) == b""
        check_rests(plane)
        if not closes:
            client.shutdown(socket.SHUT_WR)
        assert len(read_all(server)) == sent


def test_a_fast_flow_starves_nobody() -> None:
    """While one connection moves as much as it can, another's echoes are served turn by turn."""
    with RealPort() as real, DataPlane([real]) as plane:
        bulk, sink = plane.pair()
        small, partner = plane.pair()
        stop = threading.Event()
        taken: list[int] = []

        def flood() -> None:
            part = bytes(MEGABYTE)
            while not stop.is_set():
                bulk.sendall(part)
            bulk.shutdown(socket.SHUT_WR)

        def drain() -> None:
            buffer = bytearray(MEGABYTE)
            while count := sink.recv_into(buffer):
                taken.append(count)
            sink.shutdown(socket.SHUT_WR)

        threads = [threading.Thread(target=target) for target in (flood, drain)]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(taken) > 4 * MEGABYTE, what="the flood")
        for _ in range(50):
            before = sum(taken)
            small.sendall(b"echo")
            partner.sendall(partner.recv(4))
            assert small.recv(4) == b"echo"
            assert sum(taken) - before < 64 * MEGABYTE
        stop.set()
        for thread in threads:
            thread.join()
        assert sum(taken) == plane.wait_events(kind=EventKind.CLOSE)[0]["bytes_in"]


@pytest.mark.parametrize("side", ["client", "server"])
def test_urgent_data_stays_in_the_stream(side: str) -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        pair = plane.pair()
        speaker, hearer = pair if side == "client" else reversed(pair)
        speaker.sendall(b"ab")
        assert hearer.recv(10) == b"ab"
        speaker.send(b"!", socket.MSG_OOB)
        hearer.settimeout(5)
        assert hearer.recv(1) == b"!"
        speaker.sendall(b"cd")
        speaker.shutdown(socket.SHUT_WR)
        assert read_all(hearer) == b"cd"


@pytest.mark.parametrize("closes", [False, True])
def test_urgent_data_in_a_spliced_stream(closes: bool) -> None:
    """splice never passes urgent data, and takes it for the end when a FIN is behind it."""
    data, tail = os.urandom(2 * MEGABYTE), b"the rest"
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        received = bytearray()
        thread = threading.Thread(target=client.sendall, args=(data,))
        thread.start()
        while len(received) < len(data):
            received += server.recv(1 << 18)
        thread.join()
        assert plane.total("spliced_bytes") > 0
        client.sendall(data)
        client.send(b"!", socket.MSG_OOB)
        client.sendall(tail)
        if closes:
            client.shutdown(socket.SHUT_WR)
        while len(received) < 2 * len(data) + 1 + len(tail):
            received += server.recv(1 << 18)
        assert received == data + data + b"!" + tail
        client.close()
