"""Heartbeats by way of a ping address on a switch that lets nothing pass between the boxes; IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ha_lab import BOXES, ROUTER, Lab, lab
from harness import wait_for
from namespaces import inside

from lbfast.ha.echo_path import EchoPath
from lbfast.ha.ping import Pings, PingTarget

pytestmark = pytest.mark.root

ADDRESSES = {4: {**BOXES, "r": ROUTER}, 6: {"a": "fd77::11", "b": "fd77::12", "r": "fd77::1"}}


@pytest.fixture
def net() -> Iterator[Lab]:
    with lab("he") as found:
        for name, address in ADDRESSES[6].items():
            found.ip(name, "address", "add", f"{address}/64", "dev", "eth0", "nodad")
        found.split()
        yield found


def opened(net: Lab, name: str, version: int) -> EchoPath:
    known = ADDRESSES[version]
    way = (known[name], known["b" if name == "a" else "a"])
    # The first one leads elsewhere.
    other = ("10.78.0.11", "10.78.0.12") if version == 4 else ("fd78::11", "fd78::12")
    path = EchoPath(*way, via=known["r"], ways=(other, way))
    with inside(net.ns(name)):
        path.open(0)
    assert (path.local, path.peer) == way
    return path


def take(path: EchoPath) -> list[bytes]:
    """What has come since."""
    found = []
    assert path.sock is not None
    while True:
        try:
            data = path.unwrap(path.sock.recv(2048))
        except BlockingIOError:
            return found
        found += [] if data is None else [data]


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_box_sends_arrives_at_the_other_one_alone(net: Lab, version: int) -> None:
    ours, theirs = opened(net, "a", version), opened(net, "b", version)
    known = ADDRESSES[version]
    got: list[bytes] = []

    def comes(count: int) -> bool:
        got.extend(take(theirs))
        return len(got) >= count

    with inside(net.ns("b")):
        pings = Pings([PingTarget(known["r"])], identity=7)
        pings.turn(0)
    for number in range(3):
        beat = bytes([number]) * (140 + number)
        ours.put(beat)
        wait_for(lambda number=number: comes(number + 1), 10, "the heartbeat to come by way of the router")
        assert got[-1] == beat
    assert len(got) == 3
    assert take(ours) == [], "the router answers to the peer"

    def is_answered() -> bool:
        pings.turn(1)
        return pings.count(1) == (1, 1)

    wait_for(is_answered, 10, "the router's answer to a ping of the box itself")
    assert take(theirs) == [], "that is no heartbeat"
    pings.close()
    for path in (ours, theirs):
        path.shut()
        path.shut()
        assert path.sock is None
        path.put(b"to nobody")


def test_a_pair_on_another_network_than_the_ping_address_says_so_and_leaves_no_socket(net: Lab) -> None:
    path = EchoPath("10.77.0.99", "10.77.0.12", via=ROUTER, ways=(("10.77.0.99", "10.77.0.12"),))
    with (
        inside(net.ns("a")),
        pytest.raises(OSError, match=f"speaks to {ROUTER} with {BOXES['a']}, which is in no path"),
    ):
        path.open(0)
    assert path.sock is None


def test_a_ping_address_without_a_route(net: Lab) -> None:
    path = EchoPath(BOXES["a"], BOXES["b"], via="fd99::1", ways=(("fd77::11", "fd77::12"),))
    with inside(net.ns("a")), pytest.raises(OSError, match="unreachable"):
        path.open(0)
