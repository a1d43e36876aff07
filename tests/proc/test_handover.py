"""Connections pass from worker to worker: every phase, every carrier of bytes, and deaths in the middle."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
import time

import pytest
from data_plane import BlackHole, DataPlane, RealPort
from waiting import freeze, scaled, wait_for

from lbfast.model.state import Ended, EventKind

RST = struct.pack("ii", 1, 0)


def swap(plane: DataPlane, giver: int, taker: int) -> None:
    """The taker comes, the giver leaves and ends."""
    plane.start(taker)
    plane.leave(giver, taker)
    plane.reap(giver)


def says(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    sender.sendall(data)
    got = b""
    while len(got) < len(data):
        got += receiver.recv(65_536)
    assert got == data


def test_connections_go_on_in_another_worker() -> None:
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        pairs = [plane.pair(f"127.0.0.{host}") for host in range(2, 102)]
        before = {it["id"]: it for it in plane.slabs[0].connections()}
        swap(plane, 0, 1)
        for client, server in pairs:
            says(client, server, b"there")
            says(server, client, b"and back")
        after = {it["id"]: it for it in plane.slabs[1].connections()}
        for name in ("client", "client_port", "accepted_ms", "connected_ms", "real", "reason"):
            assert {id_: it[name] for id_, it in before.items()} == {id_: it[name] for id_, it in after.items()}
        assert (plane.connections, plane.real_connections(), plane.holds()) == (100, [100], 100)
        assert (plane.worker(0)["connections"], plane.worker(1)["connections"]) == (0, 100)
        assert (plane.worker(0)["moved_out"], plane.worker(1)["moved_in"]) == (100, 100)
        for client, server in pairs:
            client.close()
            server.close()
        ids = {it["id"] for it in plane.wait_events(100, kind=EventKind.CLOSE)}
        assert ids == set(before)
        assert not [it for it in plane.events if it["ended"] == Ended.WORKER_DIED]


@pytest.mark.alone  # a worker that comes late reads more at once than fits a block
@pytest.mark.parametrize("size", [20_000, 3_000_000], ids=["block", "pipe"])
def test_held_bytes_come_along(size: int) -> None:
    """The receiver does not read: bytes wait in a block, or in a pipe."""
    data = random.Random(size).randbytes(12_000_000)
    with RealPort() as real, DataPlane([real], spare=2) as plane:
        client, server = plane.pair()
        held = "pipes" if size > 1_000_000 else "blocks"
        sender = threading.Thread(target=_trickle if held == "blocks" else _pour, args=(server, data))
        sender.start()
        wait_for(lambda: plane.worker(0)[held] == 1 and _is_still(plane, 0), what=f"bytes in {held}")
        swap(plane, 0, 1)
        assert plane.worker(1)[held] == 1
        swap(plane, 1, 2)
        got = bytearray()
        while len(got) < len(data):
            part = client.recv(1 << 20)
            assert part
            got += part
        sender.join(scaled(20))
        assert got == data


def _pour(sock: socket.socket, data: bytes) -> None:
    sock.settimeout(scaled(60))
    sock.sendall(data)


def _trickle(sock: socket.socket, data: bytes) -> None:
    """Pieces that are too small to be spliced."""
    sock.settimeout(scaled(60))
    for at in range(0, len(data), 9_000):
        sock.sendall(data[at : at + 9_000])
        time.sleep(0.00005)  # no condition: another piece, so that the relay sees many short reads


def _is_still(plane: DataPlane, seat: int) -> bool:
    def moved() -> int:
        return sum(it["bytes_out"] for it in plane.slabs[seat].connections())

    before = moved()
    time.sleep(0.05)
    return before == moved()


def test_half_closed_connection_stays_half_closed() -> None:
    with RealPort() as real, DataPlane([real], spare=1, half_close_ms=60_000) as plane:
        client, server = plane.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b"question"
        assert server.recv(100) == b""
        swap(plane, 0, 1)
        says(server, client, b"answer")
        server.close()
        assert client.recv(100) == b""
        assert plane.wait_events(kind=EventKind.CLOSE)[0]["ended"] == Ended.CLOSE


def test_timers_go_on() -> None:
    """The idle clock runs from the last byte, not from the hand-over."""
    with RealPort() as real, DataPlane([real], spare=1, client_idle_ms=int(scaled(6) * 1_000)) as plane:
        client, _ = plane.pair()
        start = time.monotonic()
        time.sleep(scaled(4))  # part of the time that is measured
        swap(plane, 0, 1)
        assert client.recv(10) == b""
        assert time.monotonic() - start < scaled(9.5)  # from the hand-over it would be 10
        assert plane.wait_events(kind=EventKind.CLOSE)[0]["ended"] == Ended.CLIENT_IDLE


def test_reset_behind_bytes_is_told_by_the_taker() -> None:
    """Phase linger: the server has reset, the client has not read yet."""
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        client, server = plane.pair()
        server.sendall(b"x" * 1_000_000)
        wait_for(lambda: _is_still(plane, 0), what="the relay to be still")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        server.close()
        wait_for(lambda: [it["phase"] for it in plane.slabs[0].connections()] == [4], what="phase linger")
        swap(plane, 0, 1)
        got = 0
        with pytest.raises(ConnectionResetError):
            while part := client.recv(65_536):
                got += len(part)
        assert got == 1_000_000
        closed = plane.wait_events(kind=EventKind.CLOSE)[0]
        assert (closed["ended"], closed["bytes_out"]) == (Ended.RESET, got)


def test_proxy_header_that_is_still_on_its_way() -> None:
    with RealPort() as real, DataPlane([real], spare=1, accept_proxy_from=["127.0.0.0/8"]) as plane:
        client = plane.connect()
        client.sendall(b"PROXY TCP4 10.1.2.3 10.")
        wait_for(lambda: [it["phase"] for it in plane.slabs[0].connections()] == [1], what="phase proxy")
        swap(plane, 0, 1)
        client.sendall(b"9.9.9 1000 443\r\nhello")
        server = plane.accept()
        assert server.recv(100) == b"hello"
        assert plane.wait_events(kind=EventKind.OPEN)[0]["client"] == "10.1.2.3"


def test_connect_under_way_is_finished_by_the_taker() -> None:
    """One real server answers no SYN: the taker's timer ends the attempt and goes to the other."""
    with BlackHole() as hole, RealPort() as real:
        with DataPlane([hole, real], spare=1, connect_timeout_ms=1_000, persistence=0) as plane:
            clients = [plane.connect(f"127.0.0.{host}") for host in range(2, 6)]
            wait_for(lambda: any(it["phase"] == 2 for it in plane.slabs[0].connections()), what="phase connect")
            swap(plane, 0, 1)
            for client in clients:
                client.sendall(b"hello")
            for _ in clients:
                assert plane.accept().recv(100) == b"hello"
            assert plane.real_connections() == [0, 4]


def test_cut_is_not_missed() -> None:
    """The halt falls between giver and taker: the taker is stopped while its inbox fills."""
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        client, _ = plane.pair()
        plane.start(1)
        freeze(plane.pids[1])
        plane.leave(0, 1)
        wait_for(lambda: plane.worker(0)["moved_out"] == 1, what="the offer")
        plane.table.set_admin(0, 2)
        plane.table.cut(0)
        os.kill(plane.pids[1], signal.SIGCONT)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        plane.reap(0)


def offer_ten(plane: DataPlane) -> list[tuple[socket.socket, socket.socket]]:
    """Ten connections that the first worker has offered and the second one, which stands still, has not read."""
    pairs = [plane.pair(f"127.0.0.{host}") for host in range(2, 12)]
    plane.start(1)
    freeze(plane.pids[1])
    plane.leave(0, 1)
    wait_for(lambda: plane.worker(0)["moved_out"] == 10, what="the offers")
    return pairs


def test_giver_dies_with_offers_in_the_inbox() -> None:
    """What the taker has not read when the supervisor repairs is given back once, and dropped by the taker."""
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        pairs = offer_ten(plane)
        assert plane.kill(0) == 10
        assert (plane.connections, plane.real_connections(), plane.holds()) == (0, [0], 0)
        os.kill(plane.pids[1], signal.SIGCONT)
        for client, _ in pairs:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert (plane.connections, plane.real_connections(), plane.holds()) == (0, [0], 0)
        assert len(plane.wait_events(10, kind=EventKind.CLOSE)) == 10


def test_giver_dies_and_the_taker_reads_in_time() -> None:
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        pairs = offer_ten(plane)
        freeze(plane.pids[0])  # it dies before it has seen that they were taken
        os.kill(plane.pids[1], signal.SIGCONT)
        for client, server in pairs:
            says(client, server, b"the taker has us")
        assert plane.kill(0) == 0
        for client, server in pairs:
            says(client, server, b"still here")
        assert (plane.connections, plane.real_connections(), plane.holds()) == (10, [10], 10)


def test_taker_dies_and_its_successor_reads_the_inbox() -> None:
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        pairs = offer_ten(plane)
        assert plane.kill(1) == 0
        plane.start(1)
        plane.reap(0)
        for client, server in pairs:
            says(client, server, b"still here")
        assert (plane.connections, plane.real_connections(), plane.holds()) == (10, [10], 10)


def test_taker_dies_with_a_connection_that_it_has_not_claimed() -> None:
    """It was received, so no successor finds it; its sockets went with the dead worker, and the rest comes over."""
    with RealPort() as real, DataPlane([real], spare=1) as plane:
        pairs = offer_ten(plane)
        _, fds, _, _ = socket.recv_fds(plane.inboxes[1][0], 65536, 8)
        for fd in fds:
            os.close(fd)
        assert plane.kill(1) == 0
        plane.start(1)
        plane.reap(0)
        alive = sum(_is_alive(client, server) for client, server in pairs)
        assert alive == 9
        assert (plane.connections, plane.real_connections(), plane.holds()) == (9, [9], 9)
        assert [e["ended"] for e in plane.wait_events(kind=EventKind.CLOSE)] == [Ended.WORKER_DIED]


@pytest.mark.parametrize("victim", [0, 1], ids=["giver", "taker"])
def test_killed_at_any_moment_nothing_is_counted_twice(victim: int) -> None:
    """Again and again, at another moment each time: what is left alive is counted, and nothing else."""
    chance = random.Random(victim)
    with RealPort() as real:
        for turn in range(8):
            with DataPlane([real], spare=1) as plane:
                pairs = [plane.pair(f"127.0.0.{host}") for host in range(2, 82)]
                plane.start(1)
                plane.leave(0, 1)
                wait_for(lambda plane=plane, turn=turn: plane.worker(1)["moved_in"] >= turn * 8, what="some to move")
                time.sleep(chance.random() / 2_000)
                plane.kill(victim)
                if victim == 1:
                    plane.start(1)
                    plane.reap(0)
                alive = sum(_is_alive(client, server) for client, server in pairs)
                found = (plane.connections, plane.real_connections(), plane.holds())
                assert found == (alive, [alive], alive), f"turn {turn}"
                assert len(list(plane.slabs[1].connections())) == alive
            real.close_accepted()


def _is_alive(client: socket.socket, server: socket.socket) -> bool:
    try:
        client.sendall(b"ping")
        return server.recv(10) == b"ping"
    except OSError:
        return False


def test_a_full_taker_leaves_the_rest_where_it_is() -> None:
    """It goes on being served by the giver, and follows when there is room."""
    with RealPort() as real, DataPlane([real], spare=1, slab=64) as plane:
        pairs = [plane.pair(f"127.0.0.{host}") for host in range(2, 62)]
        plane.start(1)
        others = [plane.connect(f"127.0.1.{host}") for host in range(2, 12)]
        others += [plane.accept() for _ in others]
        wait_for(lambda: plane.connections == 70, what="new ones in both")
        plane.leave(0, 1)
        wait_for(lambda: plane.worker(1)["connections"] >= 58, what="the taker to be full")
        for client, server in pairs:
            says(client, server, b"served by either")
        for sock in others:
            sock.close()
        wait_for(lambda: plane.worker(0)["connections"] == 0, what="the rest to follow")
        plane.reap(0)
        for client, server in pairs:
            says(client, server, b"served by the taker")


def test_traffic_never_stops() -> None:
    """Bytes flow both ways while connections go round and round."""
    with RealPort() as real, DataPlane([real], spare=3) as plane:
        pairs = [plane.pair(f"127.0.0.{host}") for host in range(2, 34)]
        stop = threading.Event()
        damaged: list[str] = []
        threads = [threading.Thread(target=_exchange, args=(*pair, stop, damaged)) for pair in pairs]
        for thread in threads:
            thread.start()
        for turn in range(12):
            giver, taker = turn % 4, (turn + 1) % 4
            swap(plane, giver, taker)
        stop.set()
        for thread in threads:
            thread.join(scaled(20))
        assert not damaged, damaged[:5]
        assert (plane.connections, plane.real_connections(), plane.holds()) == (32, [32], 32)


def _exchange(client: socket.socket, server: socket.socket, stop: threading.Event, damaged: list[str]) -> None:
    chance = random.Random(client.fileno())
    try:
        while not stop.is_set():
            data = chance.randbytes(chance.choice([10, 5_000, 200_000]))
            one, other = (client, server) if chance.random() < 0.5 else (server, client)
            writer = threading.Thread(target=one.sendall, args=(data,))
            writer.start()
            got = bytearray()
            while len(got) < len(data):
                part = other.recv(1 << 20)
                if not part:
                    break
                got += part
            writer.join()
            if got != data:
                damaged.append(f"{len(got)} of {len(data)} bytes")
                return
    except OSError as error:
        damaged.append(repr(error))
