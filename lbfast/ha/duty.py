"""One box of a pair at work: hears, looks, decides, acts; a turn at a time, with the time passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lbfast.ha.election import (
    HaState,
    Memory,
    Move,
    Probe,
    Standing,
    Surroundings,
    decide,
    ha_state,
    hear,
    make_beat,
    needs_probe,
    order_takeover,
)
from lbfast.ha.fitness import CANNOT_SERVE, CUT_OFF, Judgement, Sight, Steady, judge
from lbfast.ha.heartbeat import Heartbeats, Lateness
from lbfast.ha.takeover import Holder, Prober
from lbfast.ha.timing import Timing
from lbfast.ha.watch import Watch

_FAREWELLS = 3  # heartbeats that say that this box has let go: any one may be lost


@dataclass
class Duty:
    """``tell``: an event for people.  ``moved``: whoever else must know that this box holds the addresses or not."""

    memory: Memory
    timing: Timing
    watch: Watch
    holder: Holder
    prober: Prober
    beats: Heartbeats
    tell: Callable[[str], None]
    moved: Callable[[bool], None]
    is_in_maintenance: bool = False
    is_stopping: bool = False
    steady: Steady = field(default_factory=Steady)
    judgement: Judgement = field(default_factory=lambda: judge(Sight()))
    late: Lateness = field(default_factory=Lateness)
    moves: list[tuple[int, Move]] = field(default_factory=list)
    _beat_at: int = 0
    _turned_at: int | None = None
    _surroundings: Surroundings = field(default_factory=lambda: Surroundings(0))
    _was_heard: bool = False

    def resume(self, now_ms: int) -> None:
        """The process before this one held the addresses a moment ago: go on holding them."""
        if self.holder.take(now_ms):
            return
        self.memory = Memory(
            life=self.memory.life,
            is_primary=self.memory.is_primary,
            started_at=now_ms,
            standing=Standing.ACTIVE,
            since=now_ms,
            moved_at=now_ms,
            claim=self.memory.claim,
        )
        self.tell("this box is active: it holds the addresses since before this process was replaced")
        self.moved(True)

    def turn(self, now_ms: int, due_ms: int) -> None:
        """A look around, a decision, and what follows.  ``due_ms``: when this turn should have been."""
        self.beats.open(now_ms)
        self.listen(now_ms)
        late_ms = max(0, now_ms - due_ms)
        if self.late.note(late_ms, self.timing.interval_ms // 2):
            self._forgive(late_ms, now_ms)
        self._look(now_ms, late_ms)
        self._decide(now_ms)
        self.holder.turn(now_ms)
        for news in self.holder.listen(now_ms):
            self.tell(news)
        if now_ms - self._beat_at >= self.timing.interval_ms:
            late = now_ms - self._beat_at - self.timing.interval_ms if self._beat_at else 0
            self._send(now_ms, max(0, late))

    def listen(self, now_ms: int) -> bool:
        """Take in what has come; whether anything did."""
        found = self.beats.read(now_ms, self.timing.interval_ms)
        for beat in found:
            before, self.memory = self.memory.beat, hear(self.memory, beat, now_ms)
            if self.is_active and Standing.ACTIVE in (beat.standing, before.standing if before else None):
                self.holder.announce_again(now_ms)  # two were active: the neighbours may know the other one
        return bool(found)

    def answer(self, now_ms: int) -> None:
        """Something has come: decide at once, and say so if it changes what the peer waits for."""
        before = make_beat(self.memory, self._surroundings, now_ms, self.timing)
        if self.listen(now_ms):
            self._decide(now_ms)
            after = make_beat(self.memory, self._surroundings, now_ms, self.timing)
            if (after.granted, after.hears) != (before.granted, before.hears):
                self._send(now_ms, 0)

    def order(self, now_ms: int) -> None:
        """An operator, or failback, wants this box to be active."""
        self.memory = order_takeover(self.memory, now_ms)
        self._decide(now_ms)

    def leave(self, now_ms: int) -> None:
        """Stop for good: let go and say so."""
        self.is_stopping = True
        self._surroundings = Surroundings(self.steady.level, self.steady.is_cut_off, True)
        self._decide(now_ms)
        for _ in range(_FAREWELLS):
            self._send(now_ms, 0)

    def hears(self, now_ms: int) -> bool:
        """Whether the peer has been heard lately."""
        heard_at = self.memory.heard_at
        return heard_at is not None and now_ms - heard_at < self.timing.dead_ms

    def state(self, now_ms: int) -> HaState:
        return ha_state(self.memory, now_ms, self.timing)

    @property
    def is_active(self) -> bool:
        return self.memory.standing is Standing.ACTIVE

    # --- the parts of a turn ----------------------------------------------------

    def _forgive(self, late_ms: int, now_ms: int) -> None:
        """We did not run: what the peer may have sent meanwhile was read just now; its silence begins anew."""
        self.watch.pings.forgive(late_ms)
        if self.is_active and late_ms >= self.timing.takeover_ms[0]:
            self.holder.announce_again(now_ms)  # the peer may have been active meanwhile, and we need not hear of it
        heard_at = self.memory.heard_at
        if heard_at is not None:
            self.memory = replace(self.memory, heard_at=min(now_ms, heard_at + late_ms))

    def _look(self, now_ms: int, late_ms: int) -> None:
        elapsed = 0 if self._turned_at is None else now_ms - self._turned_at
        self._turned_at = now_ms
        sight = self.watch.look(
            now_ms,
            max(0, elapsed - late_ms),
            is_holding=self.holder.is_holding,
            is_in_maintenance=self.is_in_maintenance,
        )
        self.judgement = judge(sight)
        before = self.steady.level
        self.steady.update(self.judgement, now_ms, is_certain=bool(sight.without_carrier))
        if self.steady.level != before:
            self._tell_level(before)
        self._surroundings = Surroundings(self._level, self.steady.is_cut_off, self.is_stopping, self._probe(now_ms))

    @property
    def _level(self) -> int:
        """What is compared with the peer's.  Both boxes lose a router one after the other, and find it again so.

        In doubt the addresses stay: the passive box counts as worse at once, the active one as better.
        """
        seen = self.judgement.level
        return max(self.steady.level, seen) if self.is_active else min(self.steady.level, seen)

    def _probe(self, now_ms: int) -> Probe:
        around = Surroundings(self.steady.level, self.steady.is_cut_off, self.is_stopping)
        if not needs_probe(self.memory, around, now_ms, self.timing):
            self.prober.stop()
            return Probe.NONE
        return self.prober.turn(now_ms)

    def _decide(self, now_ms: int) -> None:
        was_active = self.is_active
        before = self.memory
        self.memory, moves = decide(self.memory, self._surroundings, now_ms, self.timing)
        self._tell_silence(now_ms)
        if not moves:
            return
        self.moves = [*self.moves, *((now_ms, move) for move in moves)][-20:]
        if self.is_active and not was_active:
            self._take(moves[-1], before, now_ms)
        elif was_active and not self.is_active:
            self._let_go(moves[-1])
        self._send(now_ms, 0)

    def _take(self, move: Move, before: Memory, now_ms: int) -> None:
        self.prober.stop()
        failures = self.holder.take(now_ms)
        if failures:
            self.memory = before
            self.watch.note_unraised(failures, now_ms)
            self.steady.level = CANNOT_SERVE
            self._surroundings = Surroundings(CANNOT_SERVE)
            self.memory, _ = decide(self.memory, self._surroundings, now_ms, self.timing)
            self.tell(f"takeover failed: {'; '.join(failures)}")
            return
        self.tell(f"takeover: this box is active now, because {move.because}")
        self.moved(True)

    def _let_go(self, move: Move) -> None:
        failures = self.holder.let_go()
        self.tell(f"release: this box is passive now, because {move.because}")
        for failure in failures:
            self.tell(failure)
        self.moved(False)

    def _send(self, now_ms: int, late_ms: int) -> None:
        self._beat_at = now_ms
        self.beats.send(make_beat(self.memory, self._surroundings, now_ms, self.timing), late_ms)

    def _tell_level(self, before: int) -> None:
        if self.steady.level < before:
            self.tell(f"this box can serve less well than before: {'; '.join(self.judgement.reasons)}")
        else:
            reasons = "; ".join(self.judgement.reasons)
            self.tell("this box can serve again" + (f", but {reasons}" if self.steady.level <= CUT_OFF else ""))

    def _tell_silence(self, now_ms: int) -> None:
        heard = self.hears(now_ms)
        if heard != self._was_heard:
            self.tell("the peer is heard" if heard else f"nothing is heard of the peer for {self.timing.dead_ms} ms")
        self._was_heard = heard
