"""Everybody reaches both boxes, but they not each other: heartbeats by way of the ping address prevent a split; without
them two are active, and one remains when it heals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from ha_lab import BOXES, ROUTER, Lab, served_pair
from harness import wait_for

pytestmark = pytest.mark.root

CLIENTS = 20


@pytest.fixture
def pair(request: pytest.FixtureRequest, ca: trustme.CA) -> Iterator[Lab]:
    """The parameter: with heartbeats by way of the ping address or without."""
    with served_pair("hx", ca, clients=CLIENTS, settings={"echo_paths": request.param}) as found:
        found.start_pair()
        found.wait_ready()
        yield found


def path_by(pair: Lab, name: str, node: str) -> dict[str, Any]:
    return next(path for path in pair.status(name)["paths"] if path["via"] == node)


@pytest.mark.parametrize("pair", [True], indirect=True, ids=[""])
def test_the_ping_address_keeps_them_from_a_split(pair: Lab) -> None:
    for name in BOXES:
        wait_for(lambda name=name: path_by(pair, name, ROUTER)["heard"], 10, "all paths to be heard")
    clients = pair.clients(CLIENTS)
    moves = {name: len(pair.status(name)["moves"]) for name in BOXES}
    pair.split()
    for name in BOXES:
        wait_for(
            lambda name=name: not any(path["heard"] for path in pair.paths(name)), 10, "the other paths to be silent"
        )
    report = clients.report_after(time.monotonic(), CLIENTS)
    assert {name: len(pair.status(name)["moves"]) for name in BOXES} == moves
    pair.wait_states(a="active", b="passive")
    assert [pair.holds(name) for name in BOXES] == [True, False]
    assert report.cut() == 0
    heard = f"path {BOXES['a']} - {BOXES['b']} by way of {ROUTER}: heard"
    wait_for(lambda: heard in pair.boxes["a"].cli("ha", "status")[1], 10, "the status to say so")
    wait_for(lambda: all(path_by(pair, name, ROUTER)["heard"] for name in BOXES), 10, "both to hear over it")

    # What goes by way of the router is a path like any other: an order is granted over it.
    pair.take_over("b", "--force", "--reason", "drill")
    pair.wait_states(a="passive", b="active")
    pair.heal()
    pair.wait_ready()


@pytest.mark.parametrize("pair", [False], indirect=True, ids=[""])
@pytest.mark.parametrize("first", ["a", "b"], ids=["the primary was active", "the secondary was active"])
def test_one_remains_when_a_split_heals(pair: Lab, first: str) -> None:
    if first == "b":
        pair.take_over("b")
        pair.wait_ready()
    clients = pair.clients(CLIENTS)
    pair.split()
    pair.wait_states(a="alone", b="alone")
    assert [pair.holds(name) for name in BOXES] == [True, True], "the ping address answers both: neither is cut off"
    report = pair.status(first)
    assert report["level"] == pair.status("b" if first == "a" else "a")["level"]
    both = time.monotonic()
    pair.heal()
    wait_for(lambda: sum(map(pair.holds, BOXES)) < 2, 20, "a box to let go")
    print(f"both were active for {time.monotonic() - both:.3f} s after the split had begun to heal")
    wait_for(lambda: sorted(map(pair.state, BOXES)) == ["active", "passive"], 20, "one to remain")
    healed = time.monotonic()
    assert max(clients.report_after(healed, CLIENTS).outages(healed)) < float("inf")
    pair.wait_ready()
    assert sorted(map(pair.holds, BOXES)) == [False, True]
