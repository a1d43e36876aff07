"""How often the event rings are looked into: seldom for nothing, at once when somebody asks or an event comes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lbfast.control.pace import BUSY_S, QUIET_S, Pace

STEP = 0.05  # of the loop's clock, which these tests move


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock only moves when it is told to."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def loop() -> Iterator[SteppedLoop]:
    loop = SteppedLoop()
    yield loop
    loop.close()


def run_until(loop: SteppedLoop, work: Callable[[], Pace], seconds: float) -> Pace:
    """Start it and let so much time pass, in steps, each of which runs what is due."""

    async def start() -> Pace:
        return work()

    pace = loop.run_until_complete(start())
    turn(loop, seconds)
    return pace


def turn(loop: SteppedLoop, seconds: float) -> None:
    end = loop.now + seconds
    while loop.now < end - 1e-9:
        loop.now += STEP
        for _ in range(3):  # a ready descriptor, what it calls, what that calls
            loop.run_until_complete(yield_once())


async def yield_once() -> None:
    await asyncio.sleep(0)


def started(pace: Pace, wake: int = -1) -> Callable[[], Pace]:
    def start() -> Pace:
        pace.start(wake)
        return pace

    return start


def noting(looks: list[float], loop: SteppedLoop) -> Callable[[], int]:
    def look() -> int:
        looks.append(loop.now)
        return 0

    return look


def failed(error: Exception) -> None:
    raise AssertionError(error)


def test_looks_seldom_for_nothing(loop: SteppedLoop) -> None:
    looks: list[float] = []
    rests: list[bool] = []
    run_until(loop, started(Pace(noting(looks, loop), rests.append, lambda: False, failed)), 3 * QUIET_S)
    assert looks == pytest.approx([0.0, QUIET_S, 2 * QUIET_S, 3 * QUIET_S])
    assert rests == [True] * 4, "the next event wakes it"


@pytest.mark.parametrize(("found", "followed"), [(1, False), (0, True)])
def test_looks_often_while_records_come_or_are_followed(loop: SteppedLoop, found: int, followed: bool) -> None:
    looks: list[float] = []
    rests: list[bool] = []

    def look() -> int:
        looks.append(loop.now)
        return found

    run_until(loop, started(Pace(look, rests.append, lambda: followed, failed)), 3 * BUSY_S)
    assert looks == pytest.approx([0.0, BUSY_S, 2 * BUSY_S, 3 * BUSY_S])
    assert not any(rests)


def test_an_event_and_who_asks_are_served_at_once(loop: SteppedLoop) -> None:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    looks: list[float] = []
    rests: list[bool] = []
    try:
        pace = run_until(loop, started(Pace(noting(looks, loop), rests.append, lambda: False, failed), wake), STEP)
        os.eventfd_write(wake, 1)
        turn(loop, STEP)
        assert looks == pytest.approx([0.0, 2 * STEP])
        turn(loop, STEP)
        assert len(looks) == 2, "one wake, one look"
        pace.hurry()
        assert len(looks) == 3
        pace.stop()
        os.eventfd_write(wake, 1)
        turn(loop, 2 * QUIET_S)
        assert len(looks) == 3, "stopped"
    finally:
        os.close(wake)


def test_a_failure_is_told_once_and_ends_nothing(loop: SteppedLoop) -> None:
    told: list[Any] = []

    def look() -> int:
        raise ValueError("torn")

    run_until(loop, started(Pace(look, lambda _asleep: None, lambda: False, told.append)), 3 * QUIET_S)
    assert [str(error) for error in told] == ["torn"]
