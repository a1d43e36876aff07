"""Two boxes, the table of lbfast.ha.election, and a network that loses what it likes: explicit states, step by step.

A state holds ages, not times: "now" is 0 always, and every step makes everything older, so that
states that differ only in the clock are one.  A step is one heartbeat interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from lbfast.ha.election import Beat, Memory, Probe, Standing, Surroundings, decide, hear, make_beat, needs_probe
from lbfast.ha.timing import Timing

TICK = 100
# A claim is announced for two steps, because here a heartbeat takes a whole one; on a LAN it takes none.
TIMING = Timing(100, 300, 150, 200, 300, 500, 1000)
_OLD = 1500
_CLAIMS = 6


@dataclass(frozen=True)
class Box:
    """A running box, or a dead one (memory None)."""

    memory: Memory | None
    level: int = 3
    is_cut_off: bool = False
    beat: Beat | None = None  # on its way to the peer
    quiet: int = 3  # steps since a heartbeat of this box reached the peer, at most 3


@dataclass(frozen=True)
class World:
    boxes: tuple[Box, Box]
    has_lan: bool  # whether the boxes answer each other's address probes

    @property
    def actives(self) -> int:
        return sum(box.memory is not None and box.memory.standing is Standing.ACTIVE for box in self.boxes)


@dataclass(frozen=True)
class Weather:
    """What happens in one step: which heartbeats are lost, which box does not get to run, who acts first."""

    lost: tuple[bool, bool] = (False, False)
    held_up: tuple[bool, bool] = (False, False)
    first: int = 0


FAIR = Weather()


def start(is_primary: bool) -> Memory:
    return Memory(life=2 if is_primary else 1, is_primary=is_primary, started_at=0)


def fresh(has_lan: bool) -> World:
    return World((Box(start(True)), Box(start(False))), has_lan)


def running(has_lan: bool) -> World:
    """A pair that has settled."""
    world = fresh(has_lan)
    for _ in range(12):
        world = step(world, FAIR)
    assert world.actives == 1
    return world


@lru_cache(maxsize=200_000)
def step(world: World, weather: Weather) -> World:
    """One interval later."""
    boxes = [_older(box) for box in world.boxes]
    beats = [box.beat for box in boxes]
    order = (weather.first, 1 - weather.first)
    for index in order:
        boxes[index], boxes[1 - index] = _act(world, weather, boxes[index], boxes[1 - index], beats[1 - index], index)
    return World((boxes[0], boxes[1]), world.has_lan)


def _act(world: World, weather: Weather, box: Box, peer: Box, beat: Beat | None, index: int) -> tuple[Box, Box]:
    arrives = beat is not None and not weather.lost[1 - index]
    if box.memory is None:
        return replace(box, beat=None, quiet=3), peer
    if weather.held_up[index]:
        return replace(box, beat=None, quiet=min(3, box.quiet + 1)), peer  # what arrives meanwhile is lost, at worst
    memory = box.memory
    if arrives and beat is not None:
        memory = hear(memory, beat, 0)
        peer = replace(peer, quiet=0)
    else:
        peer = replace(peer, quiet=min(3, peer.quiet + 1))
    around = Surroundings(box.level, box.is_cut_off, False, _probe(world, memory, box, peer))
    memory, _ = decide(memory, around, 0, TIMING)
    memory = replace(memory, claim=memory.claim % _CLAIMS)
    return replace(box, memory=memory, beat=make_beat(memory, around, 0, TIMING)), peer


def _probe(world: World, memory: Memory, box: Box, peer: Box) -> Probe:
    """What the network answers: an active box does, and a primary that asks makes the secondary wait."""
    if not needs_probe(memory, Surroundings(box.level, box.is_cut_off), 0, TIMING):
        return Probe.NONE
    other = peer.memory
    if not world.has_lan or other is None:
        return Probe.FREE
    if other.standing is Standing.ACTIVE:
        return Probe.TAKEN
    asks = needs_probe(other, Surroundings(peer.level, peer.is_cut_off), 0, TIMING)
    return Probe.TAKEN if asks and other.is_primary else Probe.FREE


def _older(box: Box) -> Box:
    memory = box.memory
    if memory is None:
        return box

    def age(at: int | None) -> int | None:
        return None if at is None else max(-_OLD, at - TICK)

    return replace(
        box,
        memory=replace(
            memory,
            started_at=max(-_OLD, memory.started_at - TICK),
            since=max(-_OLD, memory.since - TICK),
            heard_at=age(memory.heard_at),
            ordered_at=age(memory.ordered_at),
            moved_at=age(memory.moved_at),
        ),
    )


def all_weather(*, with_hold_ups: bool) -> Iterator[Weather]:
    """Every loss in every direction, every order, and boxes that do not get to run."""
    yes_no = (False, True)
    holds = product(yes_no, yes_no) if with_hold_ups else [(False, False)]
    for held_up in holds:
        for one, other, first in product(yes_no, yes_no, (0, 1)):
            yield Weather((one, other), held_up, first)


def crash(world: World, index: int) -> World:
    """Power loss: nothing of it is left, and its address is gone."""
    boxes = list(world.boxes)
    boxes[index] = replace(boxes[index], memory=None, beat=None, quiet=3)
    return World((boxes[0], boxes[1]), world.has_lan)


def restart(world: World, index: int) -> World:
    boxes = list(world.boxes)
    boxes[index] = Box(replace(start(index == 0), life=3 + index), boxes[index].level, boxes[index].is_cut_off)
    return World((boxes[0], boxes[1]), world.has_lan)


def with_box(world: World, index: int, **changes: object) -> World:
    boxes = list(world.boxes)
    boxes[index] = replace(boxes[index], **changes)  # type: ignore[arg-type]
    return World((boxes[0], boxes[1]), world.has_lan)
