"""A planned takeover in namespaces takes established connections along; what becomes of them if it fails."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pytest
import trustme
from ha_lab import BOXES, PATIENT, PORT, SERVERS, VIP, Lab, report_of, running_pair
from harness import wait_for
from waiting import children_of

pytestmark = pytest.mark.root

MOVABLE = {"source_address": "vip", "ports": f"{PORT},{PORT + 1},{PORT + 2}"}
TALKING, IDLE, HALVES = 50, 10, 5
DOWNS, UPS = 2, 2
ALL = TALKING + IDLE + HALVES
FROZEN = "are frozen and shipped to the peer"
KEPT = f"{ALL} of {ALL} connections go on here"
LINK_CUT = """
add table inet t
add chain inet t i { type filter hook input priority 0; policy accept; }
add rule inet t i tcp dport 7778 drop
add rule inet t i tcp sport 7778 drop
"""


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the guard of the same name: the boxes of one test are used in the next."""


@pytest.fixture(scope="module")
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hcn", ca, any_port, service=MOVABLE, through=PATIENT) as found:
        found.run("s", "conn_servers.py", str(PORT + 1), *SERVERS)
        found.run("s", "conn_bulk.py", "serve", str(PORT + 2), *SERVERS)
        yield found


def any_port(found: Lab) -> str:
    """The real servers listen where the client came to."""
    return found.config().replace(f"port = {PORT}\n", "")


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
        return report_of(self.process)


def active(pair: Lab) -> tuple[str, str]:
    """The active box and the other one, when they know each other."""
    orders = (("a", "b"), ("b", "a"))

    def find() -> tuple[str, str] | None:
        states = {name: pair.state(name) for name in BOXES}
        return next((it for it in orders if (states[it[0]], states[it[1]]) == ("active", "passive")), None)

    return cast("tuple[str, str]", wait_for(find, 20, "one active box"))


def all_whole(notes: dict[str, Any]) -> None:
    assert notes["cut"] == []
    assert notes["damaged"] == []
    assert notes["late"] == ALL, "every connection had an answer after the last takeover"


def times_told(pair: Lab, name: str, words: str) -> int:
    return sum(words in said for said in pair.told(name))


def live(pair: Lab, name: str) -> int:
    """Connections in the counts of a box."""
    return sum(int(service["connections"]) for service in pair.boxes[name].call("overview")["virtual_services"])


@contextmanager
def deaf(pair: Lab) -> Iterator[None]:
    """No heartbeat arrives, so no claim is granted; the replication link works."""
    for name in BOXES:
        pair.deafen(name)
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
        whole.take_over(taker, "--reason", "drill")
        whole.wait_states(**{giver: "passive", taker: "active"})
        whole.wait_ready()
    all_whole(talk.report())
    whole.wait_told(taker, f"{ALL} of {ALL} connections taken over")


def test_counts_move_and_come_back_to_zero(whole: Lab) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    whole.take_over(taker)
    wait_for(lambda: (live(whole, giver), live(whole, taker)) == (0, ALL), 20, "all to be counted where they are")
    all_whole(talk.report())
    wait_for(lambda: live(whole, taker) == 0, 20, "none to be left")


def test_a_takeover_that_is_not_granted_costs_no_connection(whole: Lab) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    kept = times_told(whole, giver, KEPT)
    with deaf(whole):
        code, _, err = whole.boxes[taker].cli("ha", "takeover")
        assert code == 1
        assert "it stays active" in err
        wait_for(lambda: times_told(whole, giver, KEPT) > kept, 20, "them to go on")
        all_whole(talk.report())
    whole.wait_states(**{giver: "active", taker: "passive"})


def test_a_peer_that_dies_half_way_costs_no_connection(whole: Lab) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    before, kept = (times_told(whole, giver, words) for words in (FROZEN, KEPT))
    with deaf(whole):
        box = whole.boxes[taker]
        ha = box.child("ha")
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(box.cli, "ha", "takeover")
            wait_for(lambda: times_told(whole, giver, FROZEN) > before, 20, "them to be frozen")
            os.kill(ha, signal.SIGKILL)
            assert order.result()[0] == 1
        box.wait_replaced("ha", ha)
        wait_for(lambda: times_told(whole, giver, KEPT) > kept, 20, "them to go on")
        all_whole(talk.report())
    whole.wait_states(**{giver: "active", taker: "passive"})


def test_what_is_held_in_between_comes_over_byte_for_byte(whole: Lab) -> None:
    """Slow readers of large answers, and fast uploads to a slow server: pipes and queues are full when it is frozen."""
    process = whole.run("c", "conn_bulk.py", "clients", VIP, str(PORT + 2), str(DOWNS), str(UPS))
    for _ in range(2):
        giver, taker = active(whole)
        whole.take_over(taker)
        whole.wait_states(**{giver: "passive", taker: "active"})
        whole.wait_ready()
        whole.wait_told(taker, f"{DOWNS + UPS} of {DOWNS + UPS} connections taken over")
    notes = report_of(process)
    assert notes["damaged"] == []
    assert notes["cut"] == []
    assert notes["whole"] == DOWNS + UPS


def nothing_hangs(notes: dict[str, Any]) -> None:
    """Each connection goes on or has been cut so that its client knows; none has a wrong byte."""
    assert notes["damaged"] == []
    assert [words for words in notes["cut"] if "Timeout" in words] == []
    assert len(notes["cut"]) + notes["late"] == ALL


def test_a_giver_that_dies_with_frozen_connections(whole: Lab) -> None:
    """Its successor has their images: a connection that is silent meanwhile does not even notice."""
    talk = Talk(whole)
    giver, taker = active(whole)
    before = times_told(whole, giver, FROZEN)
    with deaf(whole):
        box = whole.boxes[giver]
        ha = box.child("ha")
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(whole.boxes[taker].cli, "ha", "takeover")
            wait_for(lambda: times_told(whole, giver, FROZEN) > before, 20, "them to be frozen")
            os.kill(ha, signal.SIGKILL)
            order.result()
        box.wait_replaced("ha", ha)
        whole.wait_told(giver, "being given away are found again")
        notes = talk.report()
    nothing_hangs(notes)
    assert [words for words in notes["cut"] if words.startswith("idle")] == [], "neither end said anything meanwhile"


@pytest.mark.parametrize("victim", ["giver's ha", "taker's ha", "giver's worker", "taker's worker", "link"])
def test_whatever_fails_in_the_middle_nothing_hangs(whole: Lab, victim: str) -> None:
    talk = Talk(whole)
    giver, taker = active(whole)
    with ThreadPoolExecutor(1) as pool:
        order = pool.submit(whole.boxes[taker].cli, "ha", "takeover")
        wait_for(lambda: live(whole, giver) < ALL or whole.state(taker) == "active", 20, "it to begin")
        if victim == "link":
            whole.nft(giver, LINK_CUT)
        else:
            box = whole.boxes[giver if victim.startswith("giver") else taker]
            name = next(name for name in children_of(box.pid) if victim.split()[1] in name)
            os.kill(children_of(box.pid)[name], signal.SIGKILL)
        order.result()
    if victim == "link":
        whole.nft(giver, "delete table inet t")
    whole.wait_ready(60)
    nothing_hangs(talk.report())
