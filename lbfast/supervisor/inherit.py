"""Inherit: what a program does first that has taken over from the one before it.

Old workers, control and health go on meanwhile.  New workers come, the old ones pass
their connections on; then health and control are replaced, which adopt what stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lbfast import __version__
from lbfast.supervisor.channel import Message
from lbfast.supervisor.children import Child
from lbfast.supervisor.ranks import Ranks
from lbfast.supervisor.relief import Relief
from lbfast.supervisor.seats import Inbox

TRIES = 3  # for workers that do not come up; then the old ones stay, and it is told
AGAIN = 1.0


class Crew(Protocol):
    """The supervisor, as far as this needs it."""

    def replace(self, name: str) -> None: ...
    def succeed_control(self, last_words: Callable[[], None]) -> None: ...
    def tell_control(self, message: Message) -> None: ...
    def later(self, seconds: float, action: Callable[[], None]) -> None: ...
    def complain(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def finish_upgrade(self) -> None: ...


@dataclass
class Inherit:
    """``number``: the request that is answered at the end, 0 when nobody waits; ``before``: the old version."""

    crew: Crew
    ranks: Ranks
    relief: Relief
    number: int
    before: str
    tries: int = TRIES
    is_regained: bool = False
    is_apart: bool = False
    has_told: bool = False
    waiting: dict[int, Child] = field(default_factory=dict)  # old workers that stand still, by pid
    inboxes: list[Inbox] = field(default_factory=list)  # theirs

    def begin(self) -> None:
        if self.is_regained:
            self.ranks.introduce_vacant()
        self.relief.begin(list(self.ranks.places), (), self._relieved)

    def begin_apart(self, inboxes: Sequence[Inbox]) -> None:
        """The old workers stand still, their memory is another one: new ones get all, then the listeners."""
        self.is_apart = True
        self.waiting = {child.pid: child for child in self.ranks.others.values() if child.index >= 0}
        self.inboxes = list(inboxes)

    def on_change(self, *, is_complete: bool) -> None:
        """Somebody is ready, or gone; ``is_complete``: all new workers serve."""
        if not self.is_apart:
            return
        living = {pid: child for pid, child in self.waiting.items() if pid in self.ranks.others}
        if is_complete and not self.has_told:
            self.has_told = True
            new = [child for child in self.ranks.named.values() if child.index >= 0]
            for inbox in self.inboxes:
                self.ranks.assets.seats.empty(inbox, [child.seat for child in new])
                inbox.close()
            for child in living.values():
                self.ranks.tell_leave_apart(child, new)
        if self.has_told and not living:
            self.is_apart = False
            self.ranks.open_doors()
            self.crew.note(f"upgraded from lbfast {self.before} to {__version__}, and the memory's layout with it")
            self.crew.finish_upgrade()

    def _relieved(self, failure: str) -> None:
        self.tries -= 1
        if failure and self.tries:
            self.crew.complain(f"new workers did not come up, the old ones go on: {failure}; trying again")
            self.crew.later(AGAIN, self.begin)
            return
        self.ranks.tell_rest_leave()
        if self.is_regained:  # everybody else has been started by this program
            self._tell(failure)
            return
        for name in self.ranks.bodies.replaced_names:
            self.crew.replace(name)
        # The old control tells whoever asked for the upgrade, when its successor answers already.
        self.crew.succeed_control(lambda: self._end(failure))

    def _end(self, failure: str) -> None:
        self._answer(failure)
        self.crew.later(0, lambda: self._tell(failure))

    def _tell(self, failure: str) -> None:
        """To the new control, which remembers it."""
        if failure:
            self.crew.complain(f"the supervisor is lbfast {__version__}, the workers are {self.before}: {failure}")
        else:
            what = "took over the workers of a killed supervisor," if self.is_regained else "upgraded"
            self.crew.note(f"{what} from lbfast {self.before} to {__version__}; no connection was cut")
        self.crew.finish_upgrade()

    def _answer(self, failure: str) -> None:
        if self.number:
            result: dict[str, Any] = {"before": self.before, "version": __version__, "workers": len(self.ranks.places)}
            self.crew.tell_control({"event": "done", "number": self.number, "failure": failure, "result": result})
