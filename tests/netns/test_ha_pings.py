"""The ping address: out of one box's reach it moves the addresses, out of both boxes' reach it moves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import trustme
from ha_lab import BOXES, Lab, running_pair
from harness import wait_for

from lbfast.ha.fitness import CUT_OFF, WELL

pytestmark = pytest.mark.root

DEAF = """
add table inet silent
add chain inet silent c { type filter hook input priority 0; policy accept; }
"""


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the guard of the same name: the boxes serve every test.  At the end, ``running_pair`` looks."""


@pytest.fixture(scope="module")
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hg", ca) as found:
        yield found


@pytest.fixture
def pair(boxes: Lab) -> Lab:
    """The primary active, both connected."""
    wait_levels(boxes, a=WELL, b=WELL)
    boxes.wait_ready()
    if boxes.holds("b"):
        boxes.take_over("a")
        boxes.wait_ready()
    boxes.wait_states(a="active", b="passive")
    return boxes


@contextmanager
def router_ignores(pair: Lab, names: Sequence[str]) -> Iterator[None]:
    """It answers no ping of these boxes."""
    rules = "".join(f"add rule inet silent c ip saddr {BOXES[name]} drop\n" for name in names)
    pair.nft("r", DEAF + rules)
    try:
        yield
    finally:
        pair.nft("r", "delete table inet silent\n")


def wait_levels(pair: Lab, **wanted: int) -> None:
    wait_for(lambda: {name: pair.status(name)["level"] for name in wanted} == wanted, 20, f"the levels to be {wanted}")


def moves(pair: Lab) -> list[list[str]]:
    """Why anything has moved on either box, ever."""
    return [[move["why"] for move in pair.status(name)["moves"]] for name in BOXES]


def test_out_of_reach_for_the_active_box_alone(pair: Lab) -> None:
    with router_ignores(pair, ["a"]):
        pair.wait_states(a="passive", b="active")
        assert (pair.holds("a"), pair.holds("b")) == (False, True)
        assert pair.status("b")["moves"][-1]["why"] == "the peer has let go"
        code, out, _ = pair.boxes["b"].cli("ha", "status")
        assert code == 1
        assert "no, because" in out
    wait_levels(pair, a=WELL)
    assert pair.holds("b"), "whoever has them keeps them"


def test_out_of_reach_for_the_passive_box_alone(pair: Lab) -> None:
    before = moves(pair)
    with router_ignores(pair, ["b"]):
        wait_levels(pair, b=CUT_OFF)
        wait_for(lambda: not pair.status("a")["ready"], 10, "the active box to know")
    wait_levels(pair, b=WELL)
    assert moves(pair) == before


def test_out_of_reach_for_both_moves_nothing(pair: Lab) -> None:
    """A router that is started anew: neither its going nor its coming back is noticed by both in one moment."""
    before = moves(pair)
    for _ in range(3):
        with router_ignores(pair, ["a", "b"]):
            wait_levels(pair, a=CUT_OFF, b=CUT_OFF)
        wait_levels(pair, a=WELL, b=WELL)
    assert moves(pair) == before
    assert (pair.holds("a"), pair.holds("b")) == (True, False)
