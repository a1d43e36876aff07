"""Connections frozen, thrown away, recreated from their images and set going: the other end must notice nothing."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from harness import scaled, wait_for

from lbfast._tcp_image import ImageError, TcpImage, freeze, recreate, reset, resume, shut, thaw, unacknowledged

pytestmark = pytest.mark.root


@dataclass
class Ends:
    """Both ends of one connection; ``ours`` is the one that moves."""

    ours: socket.socket
    theirs: socket.socket

    def move(self) -> None:
        """What two boxes do, on one: the original goes before the copy comes."""
        image = self.freeze()
        self.ours.close()
        self.recreate(image)
        self.thaw(image)

    def freeze(self) -> TcpImage:
        return freeze(self.ours.fileno())

    def recreate(self, image: TcpImage) -> None:
        """As it would be on another box: from what has travelled."""
        self.ours = socket.socket(fileno=recreate(TcpImage.unpack(image.pack())))

    def thaw(self, image: TcpImage) -> None:
        thaw(self.ours.fileno(), image)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as listener:
        theirs = socket.create_connection(listener.getsockname()[:2])
        ours, _ = listener.accept()
    theirs.settimeout(scaled(20))
    ours.setblocking(False)
    found = Ends(ours, theirs)
    yield found
    found.close()


def read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or what came before the end."""
    data = b""
    while len(data) < size:
        assert select.select([sock], [], [], scaled(20))[0], f"{len(data)} of {size} bytes came"
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def fill(sock: socket.socket) -> bytes:
    """Send until the kernel takes no more; what it took."""
    sent = bytearray()
    while True:
        part = len(sent).to_bytes(8, "big") * 4096
        try:
            sent += part[: sock.send(part, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return bytes(sent)


def test_both_directions_go_on_again_and_again(ends: Ends) -> None:
    for number in range(5):
        ends.theirs.sendall(b"question %d" % number)
        ends.move()
        assert read(ends.ours, 10) == b"question %d" % number
        ends.ours.sendall(b"answer %d" % number)
        ends.move()
        assert read(ends.theirs, 8) == b"answer %d" % number


def test_what_is_in_the_queues_comes_along(ends: Ends) -> None:
    ours = fill(ends.ours)
    ends.theirs.sendall(b"x" * 100_000)
    wait_for(lambda: not unacknowledged(ends.theirs.fileno()), 10, "everything to be in our queue")
    ends.move()
    assert read(ends.theirs, len(ours)) == ours
    assert read(ends.ours, 100_000) == b"x" * 100_000


def test_settings_and_numbers_are_the_same(ends: Ends) -> None:
    ends.ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ends.ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12_345)
    before = ends.freeze()
    ends.ours.close()
    ends.recreate(before)
    after = ends.freeze()
    assert (after.local, after.remote) == (before.local, before.remote)
    assert after.numbers() == before.numbers()
    assert after.timestamp is not None
    assert before.timestamp is not None
    assert 0 <= after.timestamp - before.timestamp < 60_000


def test_the_other_end_has_closed(ends: Ends) -> None:
    ends.theirs.sendall(b"last")
    ends.theirs.shutdown(socket.SHUT_WR)
    assert read(ends.ours, 100) == b"last"
    ends.move()
    ends.ours.sendall(b"answer")
    ends.ours.shutdown(socket.SHUT_WR)
    assert read(ends.theirs, 100) == b"answer"


def test_our_end_has_closed(ends: Ends) -> None:
    ends.ours.shutdown(socket.SHUT_WR)
    wait_for(lambda: not unacknowledged(ends.ours.fileno()), 10, "the FIN to be acknowledged")
    assert ends.freeze().numbers()["state"] == 1, "ESTABLISHED: a FIN that is acknowledged needs no state"
    resume(ends.ours.fileno())
    ends.move()
    ends.theirs.sendall(b"more")
    assert read(ends.ours, 4) == b"more"
    assert ends.theirs.recv(1) == b""


def test_our_fin_waits_behind_bytes(ends: Ends) -> None:
    sent = fill(ends.ours)
    ends.ours.shutdown(socket.SHUT_WR)
    assert ends.freeze().has_own_fin
    resume(ends.ours.fileno())
    ends.move()
    assert read(ends.theirs, len(sent) + 1) == sent


def test_a_frozen_connection_takes_nothing_and_goes_on(ends: Ends) -> None:
    image = ends.freeze()
    ends.theirs.sendall(b"meanwhile")
    assert image.unread == b""
    resume(ends.ours.fileno())
    assert read(ends.ours, 9) == b"meanwhile"
    ends.ours.sendall(b"yes")
    assert read(ends.theirs, 3) == b"yes"


def test_a_frozen_connection_is_closed_without_a_word(ends: Ends) -> None:
    image = ends.freeze()
    ends.ours.close()
    ends.recreate(image)
    shut(ends.ours.fileno())
    assert select.select([ends.theirs], [], [], 0)[0] == [], "neither FIN nor RST"
    ends.thaw(image)
    ends.theirs.sendall(b"there")
    assert read(ends.ours, 5) == b"there"


def test_a_reset_connection_is_refused(ends: Ends) -> None:
    ends.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    ends.theirs.close()
    select.select([ends.ours], [], [], scaled(20))
    with pytest.raises(ImageError, match="about to end"):
        ends.freeze()


def test_reset_reaches_the_other_end(ends: Ends) -> None:
    reset(ends.ours.fileno())
    assert select.select([ends.theirs], [], [], scaled(20))[0]
    with pytest.raises(ConnectionResetError):
        ends.theirs.recv(1)


def test_a_frozen_copy_can_be_reset(ends: Ends) -> None:
    image = ends.freeze()
    ends.ours.close()
    ends.recreate(image)
    resume(ends.ours.fileno())
    reset(ends.ours.fileno())
    assert select.select([ends.theirs], [], [], scaled(20))[0]
    with pytest.raises(ConnectionResetError):
        ends.theirs.recv(1)
