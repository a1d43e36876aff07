"""The verdicts of one virtual service: rise and fall of each real server, and the guard over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lbfast.health import mass
from lbfast.health.rise_fall import Result, Rules, Stage, Verdict, adopt, judge, reinstate
from lbfast.model.state import Health


@dataclass(frozen=True, slots=True)
class Published:
    """What the table of real servers is to say."""

    health: Health
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """A real server whose health or reason is no longer what was published."""

    real: int
    before: Health
    after: Health
    reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to be said loudly about the whole service."""

    message: str


@dataclass(slots=True)
class _Real:
    label: str
    rules: Rules
    guarded: bool  # counted by the mass-failure guard (the fallback server is not)
    verdict: Verdict
    reason: str  # of the last result
    published: Published


class ServiceHealth:
    """Results in, changes out.  No I/O, no clock of its own."""

    def __init__(self, label: str, window_ms: int, grace_ms: int) -> None:
        self.label = label
        self._window_ms = window_ms
        self._grace_ms = grace_ms
        self._reals: dict[int, _Real] = {}
        self._guard: mass.Guard | None = None

    def add(self, real: int, label: str, rules: Rules, guarded: bool = True) -> None:
        self._reals[real] = _Real(label, rules, guarded, Verdict(), "", Published(Health.UNKNOWN, ""))

    def adopt(self, real: int, health: Health, since_ms: int, reason: str) -> None:
        """Go on from what the table says: nothing is published until something changes."""
        state = self._reals[real]
        state.verdict, state.reason = adopt(health, since_ms), reason
        state.published = Published(health, reason)

    def verdict(self, real: int) -> Verdict:
        return self._reals[real].verdict

    def has_verdict(self, real: int) -> bool:
        return self._reals[real].published.health is not Health.UNKNOWN

    def deadline_ms(self) -> int | None:
        """When ``expire`` has to be called."""
        return self._guard.until_ms if self._guard else None

    def report(self, real: int, result: Result, reason: str, now_ms: int, count: int = 1) -> list[Change | Notice]:
        """One probe result, or ``count`` failed connects of clients."""
        state, before = self._reals[real], self._reals[real].verdict
        may_hold = any(other.verdict.health is Health.UP for slot, other in self._reals.items() if slot != real)
        for _ in range(min(count, state.rules.fall)):
            state.verdict = judge(state.verdict, state.rules, result, now_ms, may_hold)
        if result is not Result.PASSIVE or state.verdict is not before:
            state.reason = reason
        notices = self._guard_after(real, before, result, now_ms)
        if notices:
            return [*notices, *self._publish(self._reals)]
        return self._publish({real: state})

    def expire(self, now_ms: int) -> list[Change | Notice]:
        """End the grace if its time has come."""
        if self._guard is None or not mass.has_expired(self._guard, now_ms):
            return []
        names = self._names(self._guard.reals)
        self._guard = None
        return [
            Notice(f"{self.label}: grace is over, still failing and now taken as down: {names}"),
            *self._publish(self._reals),
        ]

    def _guard_after(self, real: int, before: Verdict, result: Result, now_ms: int) -> list[Notice]:
        state = self._reals[real]
        if self._guard is not None and real in self._guard.reals:
            return self._guarded_result(real, result, now_ms)
        fell = before.health is Health.UP and state.verdict.health is Health.DOWN
        if self._guard is not None or not fell or not state.guarded:
            return []
        self._guard = mass.engage(self._standings(), real, now_ms, self._window_ms, self._grace_ms)
        return [self._engaged(self._guard, state.reason)] if self._guard else []

    def _guarded_result(self, real: int, result: Result, now_ms: int) -> list[Notice]:
        state, guard = self._reals[real], self._guard
        assert guard is not None
        if result is Result.PASSIVE:
            self._guard = mass.release(guard, real)
            return [Notice(f"{self.label}: clients cannot connect to {state.label} either ({state.reason}): no grace")]
        if result is Result.SUCCESS:
            self._guard = mass.passed(guard, real, now_ms, self._window_ms)
            if state.verdict.health is Health.DOWN:
                state.verdict = reinstate(state.verdict, now_ms)
            return [Notice(f"{self.label}: {state.label} passes its probe again")]
        return []

    def _engaged(self, guard: mass.Guard, reason: str) -> Notice:
        return Notice(
            f"{self.label}: ALL servers that were up fail their probe at the same time ({reason}). "
            f"Suspecting the probe or the network, not the servers: {self._names(guard.reals)} stay in use "
            f"for {self._grace_ms / 1000:g} s at most"
        )

    def _standings(self) -> Mapping[int, mass.Standing]:
        return {
            slot: mass.Standing(
                state.verdict.health is Health.UP,
                state.verdict.failing_since_ms,
                state.verdict.confirmed,
                state.verdict.fell,
            )
            for slot, state in self._reals.items()
            if state.guarded
        }

    def _names(self, reals: frozenset[int]) -> str:
        return ", ".join(state.label for slot, state in self._reals.items() if slot in reals)

    def _publish(self, reals: Mapping[int, _Real]) -> list[Change | Notice]:
        changes: list[Change | Notice] = []
        for slot, state in reals.items():
            is_guarded = self._guard is not None and slot in self._guard.reals
            wanted = _shown(state, is_guarded)
            if wanted != state.published:
                changes.append(Change(slot, state.published.health, wanted.health, wanted.reason))
                state.published = wanted
        return changes


def _shown(state: _Real, is_guarded: bool) -> Published:
    """What people read about a verdict.  No number in it changes from probe to probe."""
    verdict, rules = state.verdict, state.rules
    if is_guarded:
        return Published(Health.UP, f"all servers fail, kept up for now: {state.reason}")
    if verdict.stage is Stage.FALLING:
        return Published(Health.UP, f"failed {verdict.streak} of {rules.fall}: {state.reason}")
    if verdict.stage is Stage.RISING:
        return Published(Health.DOWN, f"passed {verdict.streak} of {rules.rise}: {state.reason}")
    if verdict.stage is Stage.HELD:
        return Published(Health.DOWN, f"passes, held down until stable after {verdict.flaps} falls")
    return Published(verdict.health, state.reason)
