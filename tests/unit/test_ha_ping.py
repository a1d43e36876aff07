"""Pings of the pair: what is an answer, who counts, how the gateway is found; by explicit clocks, without a network."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import cast

import pytest

from lbfast.ha.ping import (
    EVERY_MS,
    LOST_AFTER_MS,
    Pings,
    PingTarget,
    find_gateway,
    is_reply,
    render_echo,
    resolve_targets,
)

OURS, OTHERS = 0x1234, 0x4321
HEADER = bytes([0x45]) + bytes(19)
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


class Line:
    """A socket: what comes next, an answer or an errno, and what was sent."""

    def __init__(self) -> None:
        self.coming: list[bytes | int] = []
        self.sent: list[bytes] = []
        self.refuses: int | None = None
        self.is_closed = False

    def send(self, data: bytes) -> None:
        if self.refuses is not None:
            raise OSError(self.refuses, "refused")
        self.sent.append(data)

    def recv(self, _size: int) -> bytes:
        if not self.coming:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        found = self.coming.pop(0)
        if isinstance(found, int):
            raise OSError(found, "an error from the network")
        return found

    def close(self) -> None:
        self.is_closed = True


def answer(identity: int = OURS, kind: int = 0) -> bytes:
    return HEADER + render_echo(kind, identity, 1)


def pings(*lines: Line) -> Pings:
    targets = [PingTarget(f"192.0.2.{number}", cast("socket.socket", line)) for number, line in enumerate(lines, 1)]
    return Pings(targets, identity=OURS)


@pytest.mark.parametrize(
    ("data", "version", "is_one"),
    [
        (answer(), 4, True),
        (bytes([0x46]) + bytes(23) + render_echo(0, OURS, 1), 4, True),  # a header with options
        (answer(OTHERS), 4, False),
        (answer(kind=8), 4, False),  # our own question, as a ping of this box's own address is seen
        (answer(kind=3), 4, False),  # unreachable
        (answer()[:27], 4, False),
        (HEADER, 4, False),
        (b"", 4, False),
        (render_echo(129, OURS, 1), 6, True),
        (render_echo(129, OTHERS, 1), 6, False),
        (render_echo(128, OURS, 1), 6, False),
        (render_echo(0, OURS, 1), 6, False),
        (b"", 6, False),
    ],
)
def test_what_is_an_answer(data: bytes, version: int, is_one: bool) -> None:
    assert is_reply(data, version, OURS) is is_one


def test_whoever_never_answered_does_not_count() -> None:
    first, second = Line(), Line()
    asked = pings(first, second)
    asked.turn(0)
    assert asked.count(0) == (0, 0)
    first.coming = [answer()]
    asked.turn(10)
    assert asked.count(10) == (1, 1)
    assert asked.count(10 + LOST_AFTER_MS - 1) == (1, 1)
    assert asked.count(10 + LOST_AFTER_MS) == (0, 1)
    second.coming = [answer(OTHERS)]
    asked.turn(1000)
    assert asked.count(1000) == (0, 1), "somebody else's answer"
    second.coming = [answer()]
    asked.turn(1010)
    assert asked.count(1010) == (1, 2)


def test_time_in_which_this_process_did_not_run_is_nobodys_silence() -> None:
    first, second = Line(), Line()
    asked = pings(first, second)
    first.coming = [answer()]
    asked.turn(0)
    asked.forgive(5000)
    assert asked.count(5000 + LOST_AFTER_MS - 1) == (1, 1)
    assert asked.count(5000 + LOST_AFTER_MS) == (0, 1)
    assert asked.targets[1].answered_at is None, "nothing to forgive: it never answered"


def test_the_question_is_asked_at_its_pace_with_a_new_number_each_time() -> None:
    line = Line()
    asked = pings(line)
    asked.sequence = 0xFFFE
    for now in range(0, 3 * EVERY_MS, 25):
        asked.turn(now)
    assert line.sent == [render_echo(8, OURS, number) for number in (0xFFFF, 0, 1)]
    assert all(sum(int.from_bytes(sent[at : at + 2]) for at in range(0, 8, 2)) % 0xFFFF == 0 for sent in line.sent)


def test_errors_from_the_network_hide_no_answer() -> None:
    line = Line()
    asked = pings(line)
    line.coming = [errno.EHOSTUNREACH, errno.ECONNREFUSED, answer()]
    asked.turn(0)
    assert asked.count(0) == (1, 1)


@pytest.mark.parametrize(
    ("number", "is_closed"),
    [(errno.EHOSTUNREACH, False), (errno.EAGAIN, False), (errno.ENETUNREACH, True), (errno.ENODEV, True)],
)
def test_a_socket_of_an_interface_that_is_gone_is_opened_anew(number: int, is_closed: bool) -> None:
    line = Line()
    asked = pings(line)
    line.refuses = number
    asked.turn(0)
    assert line.is_closed is is_closed
    assert (asked.targets[0].sock is None) is is_closed


@pytest.mark.parametrize(
    ("rows", "gateway"),
    [
        ("", None),
        ("eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", None),  # the network itself
        ("eth0\t00000000\t0155A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", "192.168.85.1"),
        ("tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n", None),  # by an interface, not by a router
        ("eth0\t00000000\t0155A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n", None),  # half of the world
        (
            "eth1\t0000000A\t0101000A\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n"
            "eth0\t00000000\t0155A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
            "192.168.85.1",
        ),
    ],
)
def test_the_default_gateway(tmp_path: Path, rows: str, gateway: str | None) -> None:
    table = tmp_path / "route"
    table.write_text(HEAD + rows)
    assert find_gateway(table) == gateway


def test_no_table_of_routes_no_gateway(tmp_path: Path) -> None:
    assert find_gateway(tmp_path / "none") is None
    (tmp_path / "empty").write_text("")
    assert find_gateway(tmp_path / "empty") is None


def test_an_address_that_is_named_twice_is_pinged_once() -> None:
    assert [it.address for it in resolve_targets(["192.0.2.1", "2001:db8::1", "192.0.2.1"])] == [
        "192.0.2.1",
        "2001:db8::1",
    ]
