"""A planned takeover in namespaces takes established connections along; what becomes of them if it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
from ha_lab import BOXES, PORT, SERVERS, VIP, Lab, lab
from harness import scaled, wait_for
from waiting import children_of

pytestmark = pytest.mark.root

TALKING, IDLE, HALVES = 50, 10, 5
ALL = TALKING + IDLE + HALVES
FROZEN = "are frozen and shipped to the peer"
KEPT = f"{ALL} of {ALL} connections go on here"
DEAF = """
add table inet t
add chain inet t c { type filter hook input priority 0; policy accept; }
add rule inet t c udp dport 6694 drop
"""


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the guard of the same name: the boxes of one test are used in the next."""


@pytest.fixture(scope="module")
def pair(ca: trustme.CA) -> Iterator[Lab]:
    service = {"source_address": "vip", "ports": f"{PORT},{PORT + 1}"}
    with lab("hcn", service=service) as found:
        found.write_pair()
        found.serve(ca)
        found.run("s", "conn_servers.py", str(PORT + 1), *SERVERS)
        before = set(children_of(os.getpid()).values())
        found.start("a", "b", config=found.config().replace(f"port = {PORT}\n", ""))
        yield found
        for box in found.boxes.values():
            if box.process.poll() is None:
                box.stop()
    assert set(children_of(os.getpid()).values()) <= before


@pytest.fixture
def whole(pair: Lab) -> Lab:
    """One box active, the other one ready."""
    pair.wait_ready()
    return pair


class Talk:
    """The clients, until their report is wanted."""

    def __init__(self, pair: Lab) -> None:
        words = (str(pair.directory / "ca.pem"), VIP, str(PORT), str(TALKING), str(IDLE), str(HALVES))
        self.process: subprocess.Popen[str] = pair.run("c", "conn_clients.py", *words)

    def report(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        notes = json.loads(self.process.stdout.readline())
        self.process.wait(scaled(10))
        return dict(notes)


def active(pair: Lab) -> tuple[str, str]:
    """The active box and the other one."""
    names = ("a", "b") if pair.state("a") == "active" else ("b", "a")
    assert pair.state(names[0]) == "active"
    return names


def all_whole(notes: dict[str, Any]) -> None:
    assert notes["cut"] == []
    assert notes["damaged"] == []
    assert notes["late"] == ALL, "every connection had an answer after the last takeover"


def events(pair: Lab, name: str) -> str:
    return pair.boxes[name].cli("events", "--limit", "400")[1]


def live(pair: Lab, name: str) -> int:
    """Connections in the counts of a box."""
    return sum(int(service["connections"]) for service in pair.boxes[name].call("overview")["virtual_services"])


@contextmanager
def deaf(pair: Lab) -> Iterator[None]:
    """No heartbeat arrives, so no claim is granted; the replication link works."""
    for name in BOXES:
        pair.nft(name, DEAF)
    try:
        wait_for(lambda: {pair.state(name) for name in BOXES} == {"alone", "unknown"}, 20, "both to hear nothing")
        yield
    finally:
        for name in BOXES:
            pair.nft(name, "delete table inet t")


def test_takeover_back_and_forth_keeps_connections(whole: Lab) -> None:
    talk = Talk(whole)
    for _ in range(4):
        giver, taker = active(whole)
        code, _, err = whole.boxes[taker].cli("ha", "takeover", "--reason", "drill")
        assert code == 0, err
        whole.wait_states(**{giver: "passive", taker: "active"})
        whole.wait_ready()
    all_whole(talk.report())
    assert f"{ALL} of {ALL} connections taken over" in events(whole, taker)


def test_counts_move_and_come_back_to_zero(whole: Lab) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    assert whole.boxes[taker].cli("ha", "takeover")[0] == 0
    wait_for(lambda: live(whole, taker) == ALL, 10, "all to be counted where they are")
    assert live(whole, giver) == 0
    all_whole(talk.report())
    wait_for(lambda: live(whole, taker) == 0, 20, "none to be left")


def test_a_takeover_that_is_not_granted_costs_no_connection(whole: Lab) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    kept = events(whole, giver).count(KEPT)
    with deaf(whole):
        code, _, err = whole.boxes[taker].cli("ha", "takeover")
        assert code == 1
        assert "it stays active" in err
        assert events(whole, giver).count(KEPT) > kept
        all_whole(talk.report())
    whole.wait_states(**{giver: "active", taker: "passive"})


def test_a_peer_that_dies_half_way_costs_no_connection(whole: Lab) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    before, kept = (events(whole, giver).count(text) for text in (FROZEN, KEPT))
    with deaf(whole):
        box = whole.boxes[taker]
        ha = box.child("ha")
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(box.cli, "ha", "takeover")
            wait_for(lambda: events(whole, giver).count(FROZEN) > before, 20, "them to be frozen")
            os.kill(ha, signal.SIGKILL)
            assert order.result()[0] == 1
        box.wait_replaced("ha", ha)
        wait_for(lambda: events(whole, giver).count(KEPT) > kept, 20, "them to go on")
        all_whole(talk.report())
    whole.wait_states(**{giver: "active", taker: "passive"})
