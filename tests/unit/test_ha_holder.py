"""When the addresses are announced: again and again, for ever, and anew after a box stood still or two were active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from lbfast.ha.conflicts import ASK_AGAIN_MS, DEFEND_MS, LISTEN_MS, MOST_TOLD
from lbfast.ha.duty import Duty
from lbfast.ha.election import Beat, Memory, Standing
from lbfast.ha.fitness import WELL, Sight, Steady
from lbfast.ha.takeover import ANNOUNCE_MS, RENEW_MS, Holder
from lbfast.ha.timing import Timing

OURS, THEIRS = 20, 10
INTERVAL_MS = 60_000
TICK_MS = 25


@dataclass
class Host:
    """Addresses as a test sees them: each announcement with its moment."""

    now: int = 0
    announced: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)  # who else has an address, and answers a question
    closed: int = 0

    def set_wanted(self, wanted: Sequence[tuple[str, str | None]]) -> list[str]:
        return []

    def is_held(self) -> bool:
        return bool(self.held)

    def interfaces(self) -> list[str]:
        return ["eth0"]

    def hold(self, valid_s: int) -> list[str]:
        self.held.append(self.now)
        return []

    def drop_all(self) -> list[str]:
        self.held = []
        return []

    def announce(self) -> list[str]:
        self.announced.append(self.now)
        return []

    def send_probe(self) -> None:
        self.asked.append(self.now)

    def read_probe(self) -> tuple[dict[str, str], bool]:
        return (dict(self.others) if self.asked else {}), False

    def close_probe(self) -> None:
        self.closed += 1


class Calm:
    """A watch that sees nothing amiss, and is its own pings."""

    def __init__(self) -> None:
        self.pings = self
        self.forgiven = 0

    def look(self, now_ms: int, elapsed_ms: int, **_: Any) -> Sight:
        return Sight()

    def forgive(self, late_ms: int) -> None:
        self.forgiven += late_ms


class Line:
    """Heartbeats: what the peer says next."""

    def __init__(self) -> None:
        self.coming: list[Beat] = []

    def open(self, now_ms: int) -> None: ...

    def read(self, now_ms: int, interval_ms: int) -> list[Beat]:
        found, self.coming = self.coming, []
        return found

    def send(self, beat: Beat, late_ms: int) -> None: ...


class World:
    """An active box and its time."""

    def __init__(self) -> None:
        self.host, self.line, self.now = Host(), Line(), 10_000
        self.duty = Duty(
            memory=Memory(OURS, True, self.now),
            timing=Timing(),
            watch=Calm(),  # type: ignore[arg-type]
            holder=Holder(self.host, INTERVAL_MS),
            prober=_NoProber(),  # type: ignore[arg-type]
            beats=self.line,  # type: ignore[arg-type]
            tell=lambda _: None,
            moved=lambda _: None,
            steady=Steady(level=WELL),
        )
        self.host.now = self.now
        self.duty.resume(self.now)
        self.peer = Beat(THEIRS, Standing.PASSIVE, WELL, False, True)

    def live(self, ms: int) -> None:
        """Turns on time, with a peer that is heard."""
        for _ in range(0, ms, TICK_MS):
            self.turn(self.now + TICK_MS, late_ms=0)

    def turn(self, now: int, late_ms: int) -> None:
        self.now = self.host.now = now
        self.line.coming = [self.peer]
        self.duty.turn(now, now - late_ms)
        assert self.duty.is_active

    def since(self, start: int) -> list[int]:
        return [at - start for at in self.host.announced if at >= start]


class _NoProber:
    def stop(self) -> None: ...


def tick(ms: int) -> int:
    """The first turn at or after a moment."""
    return -(-ms // TICK_MS) * TICK_MS


def test_a_takeover_is_announced_again_and_again() -> None:
    host = Host()
    holder = Holder(host, INTERVAL_MS)
    assert holder.take(0) == ()
    for host.now in range(TICK_MS, 2 * INTERVAL_MS + 10_000, TICK_MS):
        holder.turn(host.now)
    first = [tick(ms) for ms in ANNOUNCE_MS]
    assert host.announced[: len(first)] == first
    rest = host.announced[len(first) - 1 :]
    assert {after - before for before, after in pairwise(rest)} == {INTERVAL_MS}, "and then for ever"
    assert {after - before for before, after in pairwise(host.held)} == {RENEW_MS}


@pytest.mark.parametrize("late_ms", [Timing().takeover_ms[0], 1500, 60_000])
def test_a_box_that_stood_still_announces_anew(late_ms: int) -> None:
    """For so long that the peer may have taken the addresses, and given them back, without our hearing of it."""
    world = World()
    world.live(8_000)
    start = world.now + TICK_MS + late_ms
    world.turn(start, late_ms)
    world.live(6_000)
    assert world.since(start) == [tick(ms) for ms in ANNOUNCE_MS]


def test_a_turn_that_is_a_little_late_announces_nothing() -> None:
    world = World()
    world.live(8_000)
    late_ms = Timing().takeover_ms[0] - 1  # sooner the peer cannot have taken over
    start = world.now + TICK_MS + late_ms
    world.turn(start, late_ms)
    world.live(6_000)
    assert world.since(start) == []


def test_whoever_keeps_the_addresses_after_two_were_active_announces_anew() -> None:
    world = World()
    world.live(8_000)
    start = world.now + TICK_MS
    world.peer = Beat(THEIRS, Standing.ACTIVE, WELL, False, True)
    world.turn(start, 0)
    world.peer = Beat(THEIRS, Standing.PASSIVE, WELL, False, True)
    ends = start + TICK_MS
    world.live(6_000)
    assert world.since(start)[0] == 0, "at once"
    assert world.since(ends) == [tick(ms) for ms in ANNOUNCE_MS], "and from when the other one has let go"


def test_a_box_that_is_passive_announces_nothing_after_a_pause() -> None:
    world = World()
    world.live(8_000)
    world.duty.memory = Memory(OURS, True, 0, heard_at=world.now, beat=world.peer)
    world.duty.holder.let_go()
    before = len(world.host.announced)
    world.now += 2_000
    world.host.now = world.now
    world.line.coming = [Beat(THEIRS, Standing.ACTIVE, WELL, False, True)]
    world.duty.turn(world.now, world.now - 2_000)
    assert len(world.host.announced) == before


OTHER = {"10.0.0.1": "02:00:00:00:00:01"}


def watch_conflicts(holder: Holder, host: Host, until: int, others: dict[str, str]) -> list[tuple[int, str]]:
    """Turns until a moment; what people are told, and when."""
    host.others = others
    told: list[tuple[int, str]] = []
    for now in range(host.now + TICK_MS, until, TICK_MS):
        host.now = now
        holder.turn(now)
        told += [(now, news) for news in holder.listen(now)]
    return told


def test_who_else_has_an_address_is_found_by_the_question_that_goes_with_each_announcement() -> None:
    host = Host()
    holder = Holder(host, INTERVAL_MS)
    holder.take(0)
    assert watch_conflicts(holder, host, 7_000, {}) == []
    assert host.asked == host.announced == [tick(ms) for ms in ANNOUNCE_MS]
    assert host.closed >= 1, "between questions the LAN is not listened to"
    told = watch_conflicts(holder, host, INTERVAL_MS + 7_000, OTHER)
    assert [news for _, news in told] == [
        "another machine (02:00:00:00:00:01) has 10.0.0.1, too: it takes clients away from this pair"
    ]
    assert told[0][0] == tick(ANNOUNCE_MS[-1]) + INTERVAL_MS, "as soon as an answer is there"
    assert holder.conflicts.words() == (told[0][1],)


def test_a_conflict_is_asked_for_each_second_and_its_end_is_told() -> None:
    host = Host()
    holder = Holder(host, INTERVAL_MS)
    holder.take(0)
    assert len(watch_conflicts(holder, host, 30_000, OTHER)) == 1
    late = [at for at in host.asked if at > 20_000]
    assert max(after - before for before, after in pairwise(late)) <= ASK_AGAIN_MS + TICK_MS
    start = host.now
    told = watch_conflicts(holder, host, start + 5_000, {})
    assert [news for _, news in told] == ["10.0.0.1 is this box's alone again"]
    assert told[0][0] - start <= ASK_AGAIN_MS + LISTEN_MS + 2 * TICK_MS
    assert holder.conflicts.words() == ()


def test_an_address_is_defended_but_not_without_end() -> None:
    """RFC 5227: two machines that both defend it must not flood the LAN."""
    host = Host()
    holder = Holder(host, INTERVAL_MS)
    holder.take(0)
    watch_conflicts(holder, host, 8_000, {})
    host.announced.clear()
    holder.announce_again(host.now)
    watch_conflicts(holder, host, host.now + 2 * DEFEND_MS, OTHER)
    assert len(ANNOUNCE_MS) < len(host.announced) <= 3 * len(ANNOUNCE_MS)


def test_addresses_that_were_let_go_are_nobodys_conflict() -> None:
    host = Host()
    holder = Holder(host, INTERVAL_MS)
    holder.take(0)
    watch_conflicts(holder, host, 2_000, OTHER)
    holder.let_go()
    assert holder.conflicts.words() == ()
    asked = len(host.asked)
    assert watch_conflicts(holder, host, 90_000, OTHER) == []
    assert len(host.asked) == asked


def test_a_lan_that_cannot_be_asked_costs_no_turn() -> None:
    host = Host()
    holder = Holder(host, INTERVAL_MS)

    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    host.send_probe = refuse  # type: ignore[method-assign]
    assert holder.take(0) == ()
    assert watch_conflicts(holder, host, 2_000, OTHER) == []
    assert "Operation not permitted" in holder.conflicts.trouble
    assert host.announced


@pytest.mark.parametrize("interval_ms", [100, 400, 500, 600, 900, 1000, 1100])
def test_a_conflict_ends_however_often_the_addresses_are_announced(interval_ms: int) -> None:
    host = Host()
    holder = Holder(host, interval_ms)
    holder.take(0)
    assert len(watch_conflicts(holder, host, 20_000, OTHER)) == 1
    start = host.now
    told = watch_conflicts(holder, host, start + 10_000, {})
    assert [news for _, news in told] == ["10.0.0.1 is this box's alone again"]
    assert told[0][0] - start <= ASK_AGAIN_MS + LISTEN_MS + 2 * TICK_MS


def test_a_machine_that_has_every_address_is_told_in_a_few_words() -> None:
    host = Host()
    holder = Holder(host, INTERVAL_MS)
    holder.take(0)
    copies = {f"10.0.{number // 250}.{number % 250}": "02:00:00:00:00:01" for number in range(1000)}
    told = watch_conflicts(holder, host, 2_000, copies)
    assert len(told) == MOST_TOLD + 1
    assert told[-1][1] == f"... and {1000 - MOST_TOLD} more of the same"
    assert len(holder.conflicts.words()) == MOST_TOLD + 1
