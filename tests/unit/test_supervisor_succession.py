"""Control is replaced without a pause, and every request for it is answered, at whatever moment it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lbfast.supervisor.succession import Succession


class Child:
    def kill(self, number: int) -> None: ...


class World:
    """The supervisor and its ranks: who has the name, and what was done."""

    def __init__(self) -> None:
        self.holder, self.coming = Child(), list[Child]()
        self.stopped, self.begun, self.replaced = list[Child](), 0, 0
        self.said: list[str] = []
        self.can_fork, self.is_stopping = True, False
        self.succession = Succession(self, self)  # type: ignore[arg-type]

    def replace(self, name: str) -> None:
        self.replaced += 1

    def may_start(self) -> bool:
        return not self.is_stopping

    def stop(self, child: Any) -> None:
        self.stopped.append(child)

    def later(self, seconds: float, action: Callable[[], None]) -> None: ...

    def come_beside(self, name: str) -> Child | None:
        if not self.can_fork:
            return None
        self.coming.append(Child())
        return self.coming[-1]

    def succeed(self, child: Child) -> Child:
        old, self.holder = self.holder, child
        return old

    def tell_begin(self, name: str) -> None:
        self.begun += 1

    def ask(self, words: str) -> None:
        self.succession.begin(lambda: self.said.append(words))

    def ready(self) -> None:
        self.succession.on_ready(self.coming[-1])  # type: ignore[arg-type]

    def old_ends(self) -> None:
        self.succession.on_death(self.stopped[-1])  # type: ignore[arg-type]


def test_one_comes_and_the_old_one_goes() -> None:
    world = World()
    world.ask("first")
    assert world.said == [], "answered when the successor answers"
    world.ready()
    assert (world.said, len(world.stopped), world.begun) == (["first"], 1, 0)
    world.old_ends()
    assert (world.begun, world.succession.is_busy) == (1, False)


def test_who_asks_before_the_successor_is_there_joins() -> None:
    world = World()
    world.ask("first")
    world.ask("second")
    world.ready()
    assert world.said == ["first", "second"]
    world.old_ends()
    assert (len(world.coming), world.succession.is_busy) == (1, False)


def test_who_asks_while_the_old_one_ends_gets_another_one() -> None:
    """It was asked of the successor: that one is to be replaced."""
    world = World()
    world.ask("first")
    world.ready()
    world.ask("second")
    assert len(world.coming) == 1, "one at a time"
    world.old_ends()
    assert (len(world.coming), world.said) == (2, ["first"])
    world.ready()
    assert world.said == ["first", "second"]
    world.old_ends()
    assert (world.begun, world.succession.is_busy) == (2, False)


@pytest.mark.parametrize("while_ending", [False, True])
def test_without_a_successor_the_old_one_is_replaced_and_all_are_answered(while_ending: bool) -> None:
    world = World()
    if while_ending:
        world.ask("before")
        world.ready()
    world.can_fork = False
    world.ask("asked")
    if while_ending:
        world.old_ends()
    assert world.said[-1] == "asked"
    assert (world.replaced, world.succession.is_busy) == (1, False)


def test_a_supervisor_that_stops_starts_nobody() -> None:
    world = World()
    world.ask("first")
    world.ready()
    world.ask("second")
    world.is_stopping = True
    world.old_ends()
    assert len(world.coming) == 1
