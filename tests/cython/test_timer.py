"""The timing wheel: never early, within a tick, beyond the horizon, over its wrap; against a dict."""

from __future__ import annotations

import random

import pytest
from stick_doors import cshim

TICK, HORIZON = cshim.TICK_MS, cshim.TICK_MS * cshim.PLACES


def due(wheel: object, now: int) -> list[int]:
    found = []
    while (slot := wheel.due(now)) is not None:  # type: ignore[attr-defined]
        found.append(slot)
    return found


@pytest.mark.parametrize("start", [0, 5, 12_345_678, 1 << 40])
def test_not_before_and_within_one_tick_after(start: int) -> None:
    for delay in (1, TICK - 1, TICK, TICK + 1, 1_000, HORIZON // 2):
        wheel = cshim.TimerWheel(4, start)
        wheel.set(2, start + delay)
        assert due(wheel, start + delay - 1) == []
        assert due(wheel, start + delay + TICK) == [2]
        assert due(wheel, start + 2 * HORIZON) == []


def test_beyond_the_horizon_fires_there() -> None:
    wheel = cshim.TimerWheel(2, 0)
    wheel.set(0, 3 * HORIZON)
    assert due(wheel, HORIZON - 3 * TICK) == []
    assert due(wheel, HORIZON) == [0]


def test_past_deadlines_fire_next() -> None:
    wheel = cshim.TimerWheel(2, 10_000)
    wheel.set(1, 3)
    assert due(wheel, 10_000 + TICK) == [1]


def test_a_long_sleep_loses_nothing() -> None:
    """SIGSTOP, suspend: many rounds of the wheel at once."""
    wheel = cshim.TimerWheel(100, 0)
    for slot in range(100):
        wheel.set(slot, slot * HORIZON // 100 + 1)
    assert sorted(due(wheel, 50 * HORIZON)) == list(range(100))


def test_set_again_while_firing() -> None:
    wheel = cshim.TimerWheel(3, 0)
    for slot in range(3):
        wheel.set(slot, 100)
    first = wheel.due(200)
    wheel.set(first, 100)  # in the past: not in this round for ever
    seen = due(wheel, 200)
    assert sorted(seen) in ([0, 1, 2], sorted({0, 1, 2} - {first}))
    assert due(wheel, 200 + 2 * TICK) in ([], [first])


@pytest.mark.parametrize("seed", range(20))
def test_against_a_dict(seed: int) -> None:
    rng = random.Random(seed)
    now = rng.randrange(1 << 42)
    wheel, model = cshim.TimerWheel(50, now), {}
    for _ in range(2_000):
        slot, verb = rng.randrange(50), rng.random()
        if verb < 0.5:
            model[slot] = now + rng.randrange(1, rng.choice([50, 2_000, HORIZON - 2 * TICK]))
            wheel.set(slot, model[slot])
        elif verb < 0.6:
            model.pop(slot, None)
            wheel.stop(slot)
        else:
            limit = rng.choice([1, 20, 500, HORIZON])
            wait = wheel.wait(now, limit)
            assert wait <= limit
            nearest = min(model.values(), default=now + limit + HORIZON)
            assert now + wait <= nearest + TICK, f"seed {seed}: sleeps too long"
            now += rng.randrange(max(1, wait + TICK))
            for fired in due(wheel, now):
                assert model.pop(fired) <= now, f"seed {seed}: early"
            assert all(at > now - TICK for at in model.values()), f"seed {seed}: late"
