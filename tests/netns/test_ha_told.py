"""A client that waits for an answer when the addresses change boxes has nothing to say: who had them tells it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import PATIENT, PORT, VIP, Lab, running_pair
from harness import scaled, wait_for
from namespaces import inside

pytestmark = pytest.mark.root

COUNT = 200
RESET = r"(\d+) connections are reset: the peer has their service address now"


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("ht", ca, through=PATIENT) as found:
        found.wait_ready()
        yield found


def waiting(pair: Lab) -> list[socket.socket]:
    """Connections that have said something that was acknowledged, and have no answer."""
    found = []
    with inside(pair.ns("c")):
        for _ in range(COUNT):
            sock = socket.create_connection((VIP, PORT), timeout=scaled(20))
            sock.sendall(b"\x16")  # a TLS record begins
            found.append(sock)
    wait_for(lambda: live(pair, "a") == COUNT, 10, "all to be relayed")
    return found


def live(pair: Lab, name: str) -> int:
    return sum(service["connections"] for service in pair.boxes[name].call("overview")["virtual_services"])


def all_told(conns: list[socket.socket]) -> None:
    for sock in conns:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        sock.close()


def test_after_a_takeover(pair: Lab) -> None:
    conns = waiting(pair)
    pair.take_over("b")
    all_told(conns)
    wait_for(lambda: live(pair, "a") == 0, 10, "none to be left")
    wait_for(lambda: sum(map(int, re.findall(RESET, "\n".join(pair.told("a"))))) == COUNT, 20, "all to be told")
    wait_for(lambda: "takeover by lbfast" in pair.boxes["a"].cli("events", "--limit", "1000")[1], 20, "their records")
    pair.wait_ready()


def test_after_a_stop(pair: Lab) -> None:
    conns = waiting(pair)
    pair.stop_box("a")
    all_told(conns)
    pair.wait_stopped("a")


def test_when_nobody_has_the_addresses_they_may_come_back(pair: Lab) -> None:
    """The box is cut off for a moment, and its peer is away: what is established goes on afterwards."""
    conns = waiting(pair)
    pair.boxes["b"].stop()
    wait_for(lambda: pair.state("a") == "alone", 10, "the peer to be missed")
    pair.cut("a")
    wait_for(lambda: not pair.holds("a"), 10, "the addresses to be let go")
    pair.mend("a")
    wait_for(lambda: pair.holds("a"), 20, "them to be back")
    assert live(pair, "a") == COUNT
    for sock in conns:
        sock.close()
    wait_for(lambda: live(pair, "a") == 0, 20, "their ends to arrive")
