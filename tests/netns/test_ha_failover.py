"""A pair of real boxes in namespaces: what clients feel of each fault.  The short form; `make failover` measures more.

Nothing here asserts a time but "it comes back": figures are measured, not asserted.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from ha_lab import SERVERS, VIP, Lab, running_pair
from harness import Lbfast, wait_for
from waiting import children_of

pytestmark = pytest.mark.root

CLIENTS = 20


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the guard of the same name: boxes are restarted in one test and used in the next.

    What is left at the end, the fixture ``pair`` looks after.
    """


@pytest.fixture(scope="module")
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hf", ca, clients=CLIENTS) as found:
        yield found


@pytest.fixture
def whole(pair: Lab) -> Lab:
    """The primary active, the secondary ready."""
    for name in ("a", "b"):
        for cable in ("lan", "hb"):
            pair.mend(name, cable)
    for name in ("a", "b"):
        if pair.boxes[name].process.poll() is not None:
            pair.revive(name)
            pair.start(name)
    pair.wait_ready()
    if pair.holds("b"):
        pair.take_over("a")
        pair.wait_ready()
    pair.wait_states(a="active", b="passive")
    return pair


def one_holds(pair: Lab, name: str) -> None:
    other = "b" if name == "a" else "a"
    assert pair.holds(name), f"{name} must hold {VIP}"
    assert not pair.holds(other), f"{other} must not"


def served_again(pair: Lab, clients: object, at: float) -> None:
    """Nobody changed server, and everybody was served by a connection begun after the fault."""
    report = clients.report_after(at, CLIENTS)  # type: ignore[attr-defined]
    assert report.moved() == 0, "a client was sent to another server although its own lives"
    assert max(report.outages(at)) < float("inf")


def known_clients(box: Lbfast) -> int:
    return len(box.call("persistence_show", service="Symphony", limit=1000)["entries"])


def test_power_loss_and_rejoin(whole: Lab) -> None:
    clients = whole.clients(CLIENTS, held=2)
    b = whole.boxes["b"]
    wait_for(lambda: known_clients(b) >= CLIENTS, 20, "the last one's entry to have come over")
    at = time.monotonic()
    whole.kill_box("a")
    whole.wait_states(b="alone")
    assert whole.holds("b")
    served_again(whole, clients, at)
    whole.revive("a")
    whole.start("a")
    whole.wait_states(a="passive", b="active")
    one_holds(whole, "b")


def test_clean_stop_hands_over(whole: Lab) -> None:
    clients = whole.clients(CLIENTS)
    at = time.monotonic()
    whole.stop_box("a")
    whole.wait_states(b="alone")
    served_again(whole, clients, at)
    assert whole.boxes["a"].wait() == 0
    one_holds(whole, "b")
    moves = whole.status("b")["moves"]
    assert moves[-1]["why"] == "the peer has handed over"


def test_planned_takeover(whole: Lab) -> None:
    clients = whole.clients(CLIENTS)
    at = time.monotonic()
    whole.take_over("b", "--reason", "drill")
    whole.wait_states(a="passive", b="active")
    one_holds(whole, "b")
    served_again(whole, clients, at)
    code, _, err = whole.boxes["b"].cli("ha", "takeover")
    assert code == 1
    assert "active already" in err


def test_takeover_is_refused_as_long_as_the_box_is_not_ready(whole: Lab) -> None:
    """For every reason that the status names, also with both boxes at the same level; --force overrules."""
    unreached = f"table inet t {{ chain c {{ type filter hook output priority 0; ip daddr {SERVERS[0]} drop; }}; }}"
    reason = "Server 1 of Symphony is reached by the active box only"
    b = whole.boxes["b"]
    whole.nft("b", unreached)
    try:
        wait_for(lambda: whole.status("b")["objections"] == [reason], 20, "the status to say so")
        assert whole.status("b")["level"] == whole.status("a")["level"]
        code, _, err = b.cli("ha", "takeover")
        assert code == 1
        assert f"not ready to take over: {reason} (--force does it anyway)" in err
        one_holds(whole, "a")
        assert whole.status("a")["objections"] == [], "it is the passive box that is ordered"
        code, _, err = b.cli("ha", "takeover", "--force")
        assert code == 0, err
        whole.wait_states(a="passive", b="active")
    finally:
        whole.nft("b", "delete table inet t")


def test_hung_workers_are_noticed(whole: Lab) -> None:
    clients = whole.clients(CLIENTS)
    workers = [pid for name, pid in children_of(whole.boxes["a"].pid).items() if "worker" in name]
    at = time.monotonic()
    whole.hang("a")
    try:
        whole.wait_states(b="active")
        one_holds(whole, "b")
        served_again(whole, clients, at)
        whole.wait_told("a", "does not move on")
    finally:
        for pid in workers:
            whole.signal(pid, signal.SIGCONT)
    whole.wait_states(a="passive", b="active")


@pytest.mark.parametrize("deaf", [("a",), ("b",), ("a", "b")], ids=["a deaf", "b deaf", "both deaf"])
def test_hung_workers_of_a_box_whose_heartbeats_are_lost(whole: Lab, deaf: tuple[str, ...]) -> None:
    """No claim is heard, or no cry for help: it lets go by itself, and the other one asks the network."""
    for name in deaf:
        whole.deafen(name)
    try:
        wait_for(lambda: not whole.status(deaf[0])["peer"]["heard"], 10, "silence")
        whole.hang("a")
        whole.wait_holder("b")
        one_holds(whole, "b")
    finally:
        for name in deaf:
            whole.nft(name, "delete table inet t\n")
        for pid in children_of(whole.boxes["a"].pid).values():
            whole.signal(pid, signal.SIGCONT)
    whole.wait_states(a="passive", b="active")


def test_client_side_link_of_the_active_cut(whole: Lab) -> None:
    clients = whole.clients(CLIENTS)
    at = time.monotonic()
    whole.cut("a", "lan")
    whole.wait_states(b="active")
    one_holds(whole, "b")
    served_again(whole, clients, at)


@pytest.mark.parametrize("direction", ["both ways", "to b", "to a"])
def test_lost_heartbeats_alone_move_nothing(whole: Lab, direction: str) -> None:
    """Both paths, by a firewall: the addresses still answer on the LAN, so nobody takes them."""
    before = len(whole.status("b")["moves"])
    victims = {"both ways": ("a", "b"), "to b": ("b",), "to a": ("a",)}[direction]
    for name in victims:
        whole.deafen(name)
    try:
        deaf = victims[-1]
        wait_for(lambda: not whole.status(deaf)["peer"]["heard"], 10, "silence")
        # Silent for several times the dead time, and still nothing has moved.
        wait_for(lambda: whole.status(deaf)["peer"]["silent_ms"] > 2000, 10, "a long silence")
        one_holds(whole, "a")
        assert len(whole.status("b")["moves"]) == before
    finally:
        for name in victims:
            whole.nft(name, "delete table inet t\n")
    whole.wait_states(a="active", b="passive")


def test_the_ha_process_keeps_four_capabilities(whole: Lab) -> None:
    """For addresses, questions to the LAN, connections that move to port 443, and files beside another user's."""
    lines = Path(f"/proc/{whole.boxes['a'].child('ha')}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {int(fields[key], 16) for key in ("CapEff", "CapPrm")} == {1 << 1 | 1 << 10 | 1 << 12 | 1 << 13}
    assert fields["NoNewPrivs"] == "1"


def test_one_path_is_enough(whole: Lab) -> None:
    whole.cut("b", "hb")
    wait_for(lambda: [path["heard"] for path in whole.paths("a")] == [True, False], 10, "one path")
    whole.wait_states(a="active", b="passive")


def test_ha_process_killed_while_active(whole: Lab) -> None:
    """Its successor goes on holding the addresses; nothing moves."""
    clients = whole.clients(CLIENTS)
    at = time.monotonic()
    old = whole.boxes["a"].child("ha")
    whole.signal(old, signal.SIGKILL)
    whole.boxes["a"].wait_replaced("ha", old)
    whole.wait_states(a="active", b="passive")
    one_holds(whole, "a")
    served_again(whole, clients, at)


@pytest.mark.parametrize("name", ["a", "b"], ids=["active", "passive"])
def test_an_upgrade_moves_nothing(whole: Lab, name: str) -> None:
    """The program is replaced in place on either box: roles and addresses stay, and the pair is ready again."""
    moves = {box: [move["why"] for move in whole.status(box)["moves"]] for box in ("a", "b")}
    old = whole.boxes[name].child("ha")
    clients = whole.clients(CLIENTS)
    at = time.monotonic()
    code, out, err = whole.boxes[name].cli("upgrade", timeout=90)
    assert code == 0, out + err
    whole.boxes[name].wait_replaced("ha", old)
    whole.wait_states(a="active", b="passive")
    whole.wait_ready()
    one_holds(whole, "a")
    other = "b" if name == "a" else "a"
    assert [move["why"] for move in whole.status(other)["moves"]] == moves[other], "the other box noticed nothing"
    served_again(whole, clients, at)


def test_everything_killed_with_the_link_up(whole: Lab) -> None:
    """The kernel of the dead box takes the addresses off by itself: their lifetime ends."""
    clients = whole.clients(CLIENTS)
    at = time.monotonic()
    whole.kill_processes("a")
    whole.wait_states(b="alone")
    wait_for(lambda: not whole.holds("a"), 15, "the address to go from the dead box")
    assert whole.holds("b")
    served_again(whole, clients, at)


def test_maintenance_keeps_a_box_from_taking_over(whole: Lab) -> None:
    assert whole.boxes["b"].cli("ha", "maintenance", "on", "--reason", "disk")[0] == 0
    try:
        code, _, err = whole.boxes["b"].cli("ha", "takeover")
        assert code == 1
        assert "maintenance" in err
        code, out, _ = whole.boxes["a"].cli("ha", "status")
        assert code == 1
        assert "no, because" in out
    finally:
        assert whole.boxes["b"].cli("ha", "maintenance", "off")[0] == 0
