"""From single probe results to a verdict: streaks, flap damping, all as one table of transitions.

A new server is CHECKING until its first probe result, which decides at once: a
server is never up unproven, and a start never waits ``rise`` intervals.  From
then on ``fall`` failures in a row take it down and ``rise`` successes in a row
bring it up.  A connect of a client that failed (PASSIVE) counts as one failure
while the server is up; reports about a server that is not up are late news.

Flap damping: every fall within ``window_ms`` of coming up counts.  From the
``threshold``-th on the server must not come up before a hold has passed that
doubles with each fall up to ``max_hold_ms``.  It comes up with the first
success after the hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from lbfast.health.spec import FlapSpec
from lbfast.model.state import Health


class Stage(Enum):
    CHECKING = "checking"  # no result yet
    UP = "up"
    FALLING = "falling"  # up, the last results failed
    DOWN = "down"
    RISING = "rising"  # down, the last results passed
    HELD = "held"  # down, passed often enough, but flapped and has to wait


class Result(Enum):
    """What the outside reports."""

    SUCCESS = "success"
    FAILURE = "failure"
    PASSIVE = "passive"  # a client's connect failed


class Signal(Enum):
    """What a result means, given the streak and the hold."""

    PASS = "pass"  # noqa: S105 - a success that changes no verdict yet
    RISE = "rise"  # the success that makes it up
    HOLD = "hold"  # would make it up, but the hold has not passed
    FAIL = "fail"  # a failure that changes no verdict yet
    FALL = "fall"  # the failure that makes it down
    LATE = "late"  # a client's failure while the server is not up


TRANSITIONS: dict[Stage, dict[Signal, Stage]] = {
    Stage.CHECKING: {Signal.RISE: Stage.UP, Signal.FALL: Stage.DOWN, Signal.LATE: Stage.CHECKING},
    Stage.UP: {Signal.PASS: Stage.UP, Signal.FAIL: Stage.FALLING, Signal.FALL: Stage.DOWN},
    Stage.FALLING: {Signal.PASS: Stage.UP, Signal.FAIL: Stage.FALLING, Signal.FALL: Stage.DOWN},
    Stage.DOWN: {
        Signal.PASS: Stage.RISING,
        Signal.RISE: Stage.UP,
        Signal.HOLD: Stage.HELD,
        Signal.FAIL: Stage.DOWN,
        Signal.LATE: Stage.DOWN,
    },
    Stage.RISING: {
        Signal.PASS: Stage.RISING,
        Signal.RISE: Stage.UP,
        Signal.HOLD: Stage.HELD,
        Signal.FAIL: Stage.DOWN,
        Signal.LATE: Stage.RISING,
    },
    Stage.HELD: {
        Signal.RISE: Stage.UP,
        Signal.HOLD: Stage.HELD,
        Signal.FAIL: Stage.DOWN,
        Signal.LATE: Stage.HELD,
    },
}

_HEALTH: dict[Stage, Health] = {
    Stage.CHECKING: Health.UNKNOWN,
    Stage.UP: Health.UP,
    Stage.FALLING: Health.UP,
    Stage.DOWN: Health.DOWN,
    Stage.RISING: Health.DOWN,
    Stage.HELD: Health.DOWN,
}


@dataclass(frozen=True, slots=True)
class Rules:
    rise: int
    fall: int
    flap: FlapSpec


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one real server's judgement.  ``streak`` counts equal results in a row."""

    stage: Stage = Stage.CHECKING
    streak: int = 0
    since_ms: int = 0  # since when the health is what it is
    failing_since_ms: int | None = None  # first failure of the running streak of failures
    confirmed: bool = False  # a client's connect failed in that streak too
    fell: bool = False  # that streak took it from up to down
    flaps: int = 0
    hold_until_ms: int = 0

    @property
    def health(self) -> Health:
        return _HEALTH[self.stage]


def adopt(health: Health, since_ms: int) -> Verdict:
    """Go on from a verdict that already stands (the health process was restarted)."""
    stage = {Health.UNKNOWN: Stage.CHECKING, Health.UP: Stage.UP, Health.DOWN: Stage.DOWN}[health]
    return Verdict(stage=stage, since_ms=since_ms)


def reinstate(verdict: Verdict, now_ms: int) -> Verdict:
    """Up again without ``rise``: the fall was held back by the mass-failure guard and is taken back."""
    return Verdict(stage=Stage.UP, streak=1, since_ms=now_ms, flaps=max(0, verdict.flaps - 1))


def judge(verdict: Verdict, rules: Rules, result: Result, now_ms: int, may_hold: bool = True) -> Verdict:
    """The verdict after one more result.  ``may_hold`` is False when no other server could take the clients."""
    signal, streak = _signal(verdict, rules, result, now_ms, may_hold)
    if signal is Signal.LATE:
        return verdict
    return _enter(verdict, rules, TRANSITIONS[verdict.stage][signal], result, streak, now_ms)


def _signal(verdict: Verdict, rules: Rules, result: Result, now_ms: int, may_hold: bool) -> tuple[Signal, int]:
    stage, is_up = verdict.stage, verdict.health is Health.UP
    if result is Result.PASSIVE and not is_up:
        return Signal.LATE, verdict.streak
    if stage is Stage.CHECKING:
        return (Signal.RISE if result is Result.SUCCESS else Signal.FALL), 1
    if result is Result.SUCCESS:
        streak = verdict.streak + 1 if stage in (Stage.UP, Stage.RISING, Stage.HELD) else 1
        if is_up:
            return Signal.PASS, streak
        if streak < rules.rise and stage is not Stage.HELD:
            return Signal.PASS, streak
        return (Signal.HOLD if may_hold and now_ms < verdict.hold_until_ms else Signal.RISE), streak
    streak = verdict.streak + 1 if stage in (Stage.FALLING, Stage.DOWN) else 1
    return (Signal.FALL if is_up and streak >= rules.fall else Signal.FAIL), streak


def _enter(verdict: Verdict, rules: Rules, stage: Stage, result: Result, streak: int, now_ms: int) -> Verdict:
    if result is Result.SUCCESS:
        after = replace(verdict, stage=stage, streak=streak, failing_since_ms=None, confirmed=False, fell=False)
    else:
        began = verdict.failing_since_ms if verdict.failing_since_ms is not None else now_ms
        confirmed = verdict.confirmed or result is Result.PASSIVE
        after = replace(verdict, stage=stage, streak=streak, failing_since_ms=began, confirmed=confirmed)
    if after.health is verdict.health:
        return after
    if after.health is Health.DOWN and verdict.health is Health.UP:
        after = replace(_damp(after, rules.flap, now_ms), fell=True)
    return replace(after, since_ms=now_ms)


def _damp(verdict: Verdict, flap: FlapSpec, now_ms: int) -> Verdict:
    """Count a fall; ``verdict.since_ms`` is still the time it came up."""
    was_stable = now_ms - verdict.since_ms >= flap.window_ms
    flaps = 1 if was_stable else verdict.flaps + 1
    if flap.threshold == 0 or flaps < flap.threshold:
        return replace(verdict, flaps=flaps, hold_until_ms=0)
    # the exponent is capped: beyond 2**30 every hold is at its maximum anyway
    hold_ms = min(flap.max_hold_ms, flap.hold_ms << min(flaps - flap.threshold, 30))
    return replace(verdict, flaps=flaps, hold_until_ms=now_ms + hold_ms)
