"""Relief: workers are replaced by others, or become more or fewer, and no connection is cut.

Successors come first and serve beside the old ones.  Only when all of them are ready
do the old ones stop accepting, pass their connections on and end.  If a
successor does not come up, the others go again, and the old ones never knew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lbfast.supervisor.children import Child

COME_WITHIN = 30.0  # from the fork to ready
LEAVE_WITHIN = 30.0  # then it is told who still has connections that fit nowhere; they go on there
Done = Callable[[str], None]
"""Called once: empty when everything is as wanted, else what is not."""


class Crew(Protocol):
    """The supervisor, as far as a relief needs it."""

    def workers(self) -> list[Child]: ...
    def come(self, place: int) -> Child | None:
        """Fork a worker on a seat of its own, beside whoever has the place; None when that fails."""

    def promote(self, child: Child) -> Child | None:
        """It has its place from now on; who had it before, if anybody."""

    def dismiss(self, place: int) -> Child | None:
        """Nobody has the place any more; who had it."""

    def tell_leave(self, child: Child, to: Sequence[Child]) -> None: ...
    def later(self, seconds: float, action: Callable[[], None]) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass
class _Plan:
    coming: dict[int, Child]  # by pid, until promoted
    gone: Sequence[int]  # places that are given up
    done: Done
    waiting: set[int] = field(default_factory=set)  # pids that are not ready yet
    leaving: set[int] = field(default_factory=set)  # pids


class Relief:
    """One at a time."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._plan: _Plan | None = None
        self._number = 0

    @property
    def is_busy(self) -> bool:
        return self._plan is not None

    def begin(self, places: Sequence[int], gone: Sequence[int], done: Done) -> None:
        """Somebody new for each of ``places``; nobody any more for those ``gone``."""
        assert self._plan is None
        self._number += 1
        number = self._number
        plan = self._plan = _Plan({}, gone, done)
        for place in places:
            child = self._crew.come(place)
            if child is None:
                self._give_up(f"worker {place} could not be started")
                return
            plan.coming[child.pid] = child
        plan.waiting = set(plan.coming)
        self._crew.later(COME_WITHIN, lambda: self._check_come(number))
        self._go_on()

    def on_ready(self, child: Child) -> None:
        if self._plan is not None:
            self._plan.waiting.discard(child.pid)
            self._go_on()

    def on_death(self, child: Child, text: str) -> None:
        """Of anybody; a leaving worker's death is its end like any other."""
        plan = self._plan
        if plan is None:
            return
        if child.pid in plan.coming:
            del plan.coming[child.pid]
            self._give_up(text)
        elif child.pid in plan.leaving:
            plan.leaving.discard(child.pid)
            self._finish()

    def _go_on(self) -> None:
        """All successors are there: the old ones go."""
        plan = self._plan
        if plan is None or plan.waiting or plan.leaving:
            return
        pairs = [(self._crew.promote(child), [child]) for child in plan.coming.values()]
        plan.coming = {}
        gone = [self._crew.dismiss(place) for place in plan.gone]
        rest = [child for child in self._crew.workers() if not child.is_leaving]
        for old, to in [*pairs, *((child, rest) for child in gone)]:
            if old is not None:
                plan.leaving.add(old.pid)
                self._crew.tell_leave(old, to)
        number = self._number
        self._crew.later(LEAVE_WITHIN, lambda: self._check_left(number))
        self._finish()

    def _finish(self) -> None:
        plan = self._plan
        if plan is not None and not plan.leaving and not plan.coming:
            self._plan = None
            plan.done("")

    def _give_up(self, why: str) -> None:
        plan, self._plan = self._plan, None
        assert plan is not None
        for child in plan.coming.values():
            child.kill(9)
        plan.done(why)

    def _check_come(self, number: int) -> None:
        if self._plan is not None and self._number == number and self._plan.waiting:
            names = ", ".join(sorted(self._plan.coming[pid].name for pid in self._plan.waiting))
            self._give_up(f"{names} not ready within {COME_WITHIN:g} s")

    def _check_left(self, number: int) -> None:
        plan = self._plan
        if plan is None or self._number != number or not plan.leaving:
            return
        count = len(plan.leaving)
        self._crew.note(f"{count} old workers keep connections that the others have no room for; they go on there")
        self._plan = None
        plan.done("")
