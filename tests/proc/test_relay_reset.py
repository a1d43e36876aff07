"""The truth about resets, both ways, with and without data, and about late and double ones."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable

import pytest
from data_plane import DataPlane, RealPort
from servers import reset
from waiting import freeze, wait_for

from lbfast.model.state import Ended, EndedBy, EventKind

Pair = tuple[socket.socket, socket.socket]
BY_SIDE = {"client": EndedBy.CLIENT, "server": EndedBy.SERVER}


def read_to_end(sock: socket.socket) -> tuple[bytes, str]:
    """All bytes, and how they ended: "fin" or "rst"."""
    received = bytearray()
    while True:
        try:
            data = sock.recv(1 << 18)
        except ConnectionResetError:
            return bytes(received), "rst"
        if not data:
            return bytes(received), "fin"
        received += data


def sides(pair: Pair, first: str) -> Pair:
    """(who resets, who must see it)."""
    return pair if first == "client" else (pair[1], pair[0])


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("size", [0, 1_000, 100_000, 1_000_000])
def test_all_that_was_said_then_the_reset(side: str, size: int) -> None:
    data = os.urandom(size)
    with RealPort() as real, DataPlane([real]) as plane:
        speaker, hearer = sides(plane.pair(), side)
        if size <= 100_000:
            speaker.sendall(data)  # all of it is in the relay's or the kernel's hands before the reset
            reset(speaker)
            assert read_to_end(hearer) == (data, "rst")
        else:
            parts = bytearray()
            speaker.setblocking(False)
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[speaker.send(rest) :]
                except BlockingIOError:
                    parts += hearer.recv(1 << 18)
            wait_for(lambda: unsent(speaker) == 0, what="the last bytes to leave")
            reset(speaker)
            tail, end = read_to_end(hearer)
            assert (bytes(parts) + tail, end) == (data, "rst")
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert (event["ended"], event["by"], event["errno"]) == (Ended.RESET, BY_SIDE[side], errno.ECONNRESET)
        assert event["bytes_in" if side == "client" else "bytes_out"] == size


def unsent(sock: socket.socket) -> int:
    import fcntl
    import struct

    return int(struct.unpack("i", fcntl.ioctl(sock, 0x894B, b"\0\0\0\0"))[0])


@pytest.mark.parametrize("side", ["client", "server"])
def test_one_that_does_not_read_and_resets(side: str) -> None:
    """Bytes for it are held everywhere; the other side learns of the reset at once."""
    with RealPort() as real, DataPlane([real]) as plane:
        silent, speaker = sides(plane.pair(), side)
        speaker.setblocking(False)
        sent = 0
        while True:
            try:
                sent += speaker.send(b"x" * 65_536)
            except BlockingIOError:
                if wait_blocked(speaker, plane):
                    break
        assert sent > 100_000
        reset(silent)
        speaker.settimeout(5)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                speaker.sendall(b"x" * 65_536)
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert (event["ended"], event["by"]) == (Ended.RESET, BY_SIDE[side])


def wait_blocked(sock: socket.socket, plane: DataPlane) -> bool:
    """Is the relay stuck, too, with what it holds?"""
    import select

    return not select.select([], [sock], [], 0.05)[1] and plane.total("pipes") + plane.total("blocks") > 0


@pytest.mark.parametrize("side", ["client", "server"])
def test_reset_after_the_end_of_stream(side: str) -> None:
    """FIN and RST that reach the relay in one batch: no read tells of the reset."""
    with RealPort() as real, DataPlane([real]) as plane:
        first, other = sides(plane.pair(), side)
        freeze(plane.pids[0])
        first.sendall(b"last words")
        first.shutdown(socket.SHUT_WR)
        reset(first)
        os.kill(plane.pids[0], signal.SIGCONT)
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert (event["ended"], event["by"]) == (Ended.RESET, BY_SIDE[side])
        assert read_to_end(other) == (b"last words", "rst")


@pytest.mark.parametrize("side", ["client", "server"])
def test_reset_after_a_forwarded_end_of_stream(side: str) -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        first, other = sides(plane.pair(), side)
        first.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
        reset(first)
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert (event["ended"], event["by"]) == (Ended.RESET, BY_SIDE[side])
        wait_for(lambda: other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE)  # after a FIN


@pytest.mark.parametrize("side", ["client", "server"])
def test_reset_while_the_other_is_sending(side: str) -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        first, sender = sides(plane.pair(), side)
        stop_after(first, 300_000, sender)
        reset(first)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                sender.sendall(b"y" * 65_536)
        plane.wait_events(kind=EventKind.CLOSE, ended=Ended.RESET, by=BY_SIDE[side])


def stop_after(reader: socket.socket, size: int, sender: socket.socket) -> None:
    sender.setblocking(False)
    got = 0
    while got < size:
        try:
            sender.send(b"y" * 65_536)
        except BlockingIOError:
            got += len(reader.recv(65_536))
    sender.settimeout(10)


def test_both_reset_in_one_batch_and_a_stranger_gets_the_place() -> None:
    """The second event of the dead connection must not touch the new one in its place."""
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        freeze(plane.pids[0])
        reset(client)
        newcomer = plane.connect()  # accepted between the two events of the batch
        reset(server)
        os.kill(plane.pids[0], signal.SIGCONT)
        partner = plane.accept()
        newcomer.sendall(b"hello")
        assert partner.recv(10) == b"hello"
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert event["ended"] == Ended.RESET
        (opened,) = [e for e in plane.read_events() if e["kind"] == EventKind.OPEN and e["id"] != event["id"]]
        assert opened["attempts"] == 1
        assert plane.total("stale_events") >= 1


def unread_bytes(close: Callable[[socket.socket], None]) -> tuple[bytes, str]:
    """What the server sees of a client that closes while bytes for it are unread."""
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        server.sendall(b"unwanted")
        wait_for(lambda: client.recv(8, socket.MSG_PEEK) == b"unwanted")
        client.sendall(b"request")
        close(client)
        return read_to_end(server)


def test_close_with_unread_bytes_is_a_reset() -> None:
    """The kernel sends RST then: the relay says no less."""
    assert unread_bytes(socket.socket.close) == (b"request", "rst")
