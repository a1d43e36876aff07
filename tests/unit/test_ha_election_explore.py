"""The election, explored: every interleaving of loss, delay, restart and faults up to a bound, then fair weather.

Each state that can be reached is checked for safety, and from each the pair must come to
exactly one active box in bounded time and stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from ha_world import FAIR, TICK, TIMING, Weather, World, all_weather, crash, fresh, restart, running, step, with_box

from lbfast.ha.election import Standing

# Listening after a start, then the death of the peer, then a claim; two steps for the last heartbeat.
BOUND = (TIMING.listen_ms + TIMING.dead_ms + 2 * TIMING.claim_ms) // TICK + 2
CALM = 8  # further steps in which nobody may move
DEPTH = 9


def explore(starts: Iterable[World], choices: Callable[[World], Iterator[World]], depth: int) -> set[World]:
    seen: set[World] = set(starts)
    edge = set(seen)
    for _ in range(depth):
        edge = {after for world in edge for after in choices(world)} - seen
        seen |= edge
    return seen


def losses(world: World) -> Iterator[World]:
    for weather in all_weather(with_hold_ups=False):
        yield step(world, weather)


def hold_ups(world: World) -> Iterator[World]:
    for weather in all_weather(with_hold_ups=True):
        yield step(world, weather)


def faults(world: World) -> Iterator[World]:
    """A box dies, comes back, gets worse or better, is cut off: at any moment, beside losses."""
    yield from losses(world)
    for index in (0, 1):
        if world.boxes[index].memory is None:
            yield step(restart(world, index), FAIR)
        else:
            yield step(crash(world, index), FAIR)
            yield step(with_box(world, index, level=0 if world.boxes[index].level else 3), FAIR)


def hear_each_other(world: World) -> bool:
    """Both have had a heartbeat of the other in this step: they know of each other."""
    return all(box.quiet == 0 for box in world.boxes)


def check_safety(worlds: Iterable[World]) -> None:
    for world in worlds:
        if world.actives == 2:
            assert not world.has_lan, f"two actives on one LAN: {world}"
            # Hearing of each other in this very step, they must have let go in it or in the next one.
            assert step(world, FAIR).actives <= 1 or not hear_each_other(world), f"two actives that hear: {world}"


def settle(world: World, weather: Weather, is_right: Callable[[World], bool]) -> None:
    """Within BOUND steps it is right and stays so; until then the addresses change hands at most twice."""
    holders = [standings(world)]
    for count in range(BOUND + CALM):
        world = step(world, weather)
        holders.append(standings(world))
        if count >= BOUND:
            assert is_right(world), f"not right after {count} steps: {world}"
            assert holders[-1] == holders[-2], f"it flaps: {world}"
    takeovers = sum(after[index] > before[index] for before, after in pairwise(holders) for index in (0, 1))
    assert takeovers <= 2, f"{takeovers} takeovers on the way to {world}"


def standings(world: World) -> list[bool]:
    return [box.memory is not None and box.memory.standing is Standing.ACTIVE for box in world.boxes]


def is_one(world: World) -> bool:
    return world.actives == 1 and is_best(world)


def is_best(world: World) -> bool:
    """The holder can serve, if anybody can."""
    able = [box.memory is not None and box.level > 0 for box in world.boxes]
    return not any(able) or any(held and can for held, can in zip(standings(world), able, strict=True))


def somebody_can(world: World) -> bool:
    return any(box.memory is not None and box.level > 0 for box in world.boxes)


@pytest.mark.parametrize("has_lan", [True, False], ids=["lan", "no lan"])
@pytest.mark.parametrize("begin", [fresh, running], ids=["fresh", "running"])
def test_losses_and_orders(has_lan: bool, begin: Callable[[bool], World]) -> None:
    worlds = explore([begin(has_lan)], losses, DEPTH)
    assert len(worlds) > 50
    check_safety(worlds)
    for world in worlds:
        settle(world, FAIR, is_one)


@pytest.mark.parametrize("has_lan", [True, False], ids=["lan", "no lan"])
def test_boxes_that_do_not_get_to_run(has_lan: bool) -> None:
    worlds = explore([running(has_lan)], hold_ups, 6)
    check_safety(worlds)
    for world in worlds:
        settle(world, FAIR, is_one)


@pytest.mark.parametrize("has_lan", [True, False], ids=["lan", "no lan"])
def test_death_restart_and_hung_workers_at_any_moment(has_lan: bool) -> None:
    worlds = {world for world in explore([running(has_lan), fresh(has_lan)], faults, 5) if somebody_can(world)}
    check_safety(worlds)
    for world in worlds:
        settle(world, FAIR, is_one)


@pytest.mark.parametrize("lost", [(True, False), (False, True), (True, True)], ids=["one way", "other way", "both"])
def test_heartbeats_lost_for_good_on_a_lan_that_works(lost: tuple[bool, bool]) -> None:
    """The addresses answer on the LAN: whoever cannot hear asks there, and stays what it is."""
    weather = Weather(lost)
    for world in explore([running(True)], losses, 5):
        settle(world, weather, lambda it: it.actives == 1)


@pytest.mark.parametrize("lost", [(True, False), (False, True), (True, True)], ids=["one way", "other way", "both"])
@pytest.mark.parametrize("index", [0, 1], ids=["primary", "secondary"])
def test_a_box_that_cannot_serve_is_relieved_although_heartbeats_are_lost(lost: tuple[bool, bool], index: int) -> None:
    """It cannot hear the claim, or cannot be heard to be unfit: it lets go by itself; the other asks the LAN."""
    for world in explore([running(True)], losses, 4):
        settle(with_box(world, index, level=0), Weather(lost), is_one)
        cut = with_box(world, index, level=1, is_cut_off=True)
        settle(cut, Weather(lost), lambda it: standings(it) == [index == 1, index == 0])


@pytest.mark.parametrize("lost", [(True, False), (False, True)], ids=["one way", "other way"])
def test_one_way_loss_without_a_lan_leaves_one(lost: tuple[bool, bool]) -> None:
    """Neither heartbeats nor address probes reach one box, but the other hears: that one lets go."""
    weather = Weather(lost)
    for world in explore([running(False)], losses, 5):
        settle(world, weather, lambda it: it.actives == 1)


@pytest.mark.parametrize("index", [0, 1], ids=["primary", "secondary"])
def test_the_box_that_is_cut_off_lets_go(index: int) -> None:
    """All is lost between the boxes, and one of them has lost the network: only the other one may be active."""
    for world in explore([running(False)], losses, 5):
        cut = with_box(world, index, is_cut_off=True, level=1)
        settle(cut, Weather((True, True)), lambda it: standings(it) == [index == 1, index == 0])
