"""Succession: control is replaced without a moment in which nobody answers.

The successor comes beside it, takes the name of the socket over and says ready; only then
is the old one told to end, and the successor to begin with what only one may do.
If the successor does not come up, the old one is stopped first, and another one started.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lbfast.supervisor.children import Child
from lbfast.supervisor.ranks import Ranks

COME_WITHIN = 30.0
NAME = "control"


class Crew(Protocol):
    """The supervisor, as far as this needs it."""

    def replace(self, name: str) -> None:
        """The old one ends, then another one is started."""

    def stop(self, child: Child) -> None: ...
    def may_start(self) -> bool: ...
    def later(self, seconds: float, action: Callable[[], None]) -> None: ...


class Succession:
    """One at a time.  A request joins the one whose successor is still to come, or waits for the old one's end."""

    def __init__(self, crew: Crew, ranks: Ranks) -> None:
        self._crew = crew
        self._ranks = ranks
        self._coming: Child | None = None
        self._old: Child | None = None
        self._last_words: list[Callable[[], None]] = []

    @property
    def is_busy(self) -> bool:
        return self._coming is not None or self._old is not None

    def begin(self, last_words: Callable[[], None]) -> None:
        """``last_words`` is called while the old one is still there and its successor answers already."""
        self._last_words.append(last_words)
        if not self.is_busy:
            self._come()

    def _come(self) -> None:
        if not self._crew.may_start():
            return  # lbfast stops, and nobody waits for an answer any more
        self._coming = self._ranks.come_beside(NAME)
        if self._coming is None:
            self._fall_back()
            return
        coming = self._coming
        self._crew.later(COME_WITHIN, lambda: self._check(coming))

    def on_ready(self, child: Child) -> None:
        if child is not self._coming:
            return
        self._coming = None
        self._speak()
        self._old = self._ranks.succeed(child)
        if self._old is None:
            self._ranks.tell_begin(NAME)
        else:
            self._crew.stop(self._old)

    def on_death(self, child: Child) -> None:
        if child is self._coming:
            self._coming = None
            self._fall_back()
        elif child is self._old:
            self._old = None
            self._ranks.tell_begin(NAME)
            if self._last_words:
                self._come()

    def _fall_back(self) -> None:
        self._speak()
        self._crew.replace(NAME)

    def _speak(self) -> None:
        for words in self._last_words:
            words()
        self._last_words = []

    def _check(self, child: Child) -> None:
        if self._coming is child:
            child.kill(9)  # its death is noticed
