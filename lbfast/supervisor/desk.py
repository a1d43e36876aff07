"""What control asks for beside commits: a process replaced.  Answered once it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lbfast.supervisor.channel import Message
from lbfast.supervisor.relief import Relief

RETRY = 0.05
TRIES = 600


class Crew(Protocol):
    """The supervisor, as far as this needs it."""

    @property
    def places(self) -> range: ...
    def replace(self, name: str) -> None: ...
    def tell_control(self, message: Message) -> None: ...
    def is_changing(self) -> bool:
        """A commit is under way."""

    def later(self, seconds: float, action: Callable[[], None]) -> None: ...
    def note(self, text: str) -> None: ...


class Desk:
    """Answers ``{"do": "restart", "name", "number"}`` with ``{"event": "done", "number", "failure"}``."""

    def __init__(self, relief: Relief, crew: Crew) -> None:
        self._relief = relief
        self._crew = crew

    def hear(self, message: Message) -> bool:
        """Whether it was for us."""
        if message.get("do") != "restart":
            return False
        self._restart(str(message.get("name")), message.get("number"), TRIES)
        return True

    def _restart(self, name: str, number: object, tries: int) -> None:
        places = self._places(name)
        if name in ("control", "health", "web"):
            # Answered first: control itself may be the one that goes.
            self._answer(number, "")
            self._crew.replace(name)
        elif not places:
            self._answer(number, f"there is no process {name!r}")
        elif self._relief.is_busy or self._crew.is_changing():
            if not tries:
                self._answer(number, "a commit or another replacement is under way and does not end")
            else:
                self._crew.later(RETRY, lambda: self._restart(name, number, tries - 1))
        else:
            self._relief.begin(places, (), lambda failure: self._replaced(name, number, failure))

    def _places(self, name: str) -> list[int]:
        """Of the workers that are meant."""
        if name == "workers":
            return list(self._crew.places)
        word, _, place = name.partition(" ")
        return [int(place)] if word == "worker" and place.isdigit() and int(place) in self._crew.places else []

    def _replaced(self, name: str, number: object, failure: str) -> None:
        if failure:
            self._crew.note(f"{name} was not replaced, everything is as before: {failure}")
        self._answer(number, failure)

    def _answer(self, number: object, failure: str) -> None:
        self._crew.tell_control({"event": "done", "number": number, "failure": failure})
