"""What control asks for: a process replaced, an upgrade, a commit; one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from lbfast.supervisor.channel import Message
from lbfast.supervisor.children import Child
from lbfast.supervisor.relief import Relief
from lbfast.supervisor.switch import Switch
from lbfast.supervisor.upgrade import TRIAL_WITHIN, Upgrade

RETRY = 0.05
TRIES = 600


class Crew(Protocol):
    """The supervisor, as far as this needs it."""

    def workers(self) -> list[Child]: ...
    def replace(self, name: str) -> None: ...
    def succeed_control(self, last_words: Callable[[], None]) -> None: ...
    def tell_control(self, message: Message) -> None: ...
    def is_steady(self) -> bool:
        """Nobody is being replaced."""

    def later(self, seconds: float, action: Callable[[], None]) -> None: ...
    def note(self, text: str) -> None: ...
    def complain(self, text: str) -> None: ...


class Desk:
    """Answers ``{"do": "restart", "name", "number"}`` with ``{"event": "done", "number", "failure"}``."""

    def __init__(self, relief: Relief, crew: Crew, upgrade: Upgrade, switch: Switch) -> None:
        self._relief = relief
        self._crew = crew
        self._upgrade = upgrade
        self._switch = switch

    def hear(self, message: Message, fds: Sequence[int]) -> None:
        """A message that begins with ``do``; the descriptors are the caller's."""
        number = message.get("number", 0)
        if message.get("do") == "restart":
            self._restart(str(message.get("name")), number, TRIES)
        elif message.get("do") == "upgrade":
            self._upgrade.begin(number, message.get("within", TRIAL_WITHIN))
        elif message.get("do") == "open" and not self._crew.is_steady():
            self._wait(message, [os.dup(fd) for fd in fds])
        else:
            self._switch.hear(message, fds)

    def _wait(self, message: Message, fds: Sequence[int]) -> None:
        """One after the other: while processes are replaced, a commit waits with its descriptors."""
        if not self._crew.is_steady():
            self._crew.later(RETRY, lambda: self._wait(message, fds))
            return
        self._switch.hear(message, fds)
        for fd in fds:
            os.close(fd)

    def upgrade_failed(self, number: int, why: str) -> None:
        """The old program goes on."""
        self._crew.complain(f"not upgraded, everything is as before: {why}")
        if number:
            self._answer(number, why)

    def _restart(self, name: str, number: int, tries: int) -> None:
        places = self._places(name)
        if name == "control":
            self._crew.succeed_control(lambda: self._answer(number, ""))
        elif name in ("health", "web"):
            self._crew.replace(name)
            self._answer(number, "")
        elif not places:
            self._answer(number, f"there is no process {name!r}")
        elif not self._crew.is_steady() or self._switch.is_busy:
            if not tries:
                self._answer(number, "a commit or another replacement is under way and does not end")
            else:
                self._crew.later(RETRY, lambda: self._restart(name, number, tries - 1))
        else:
            self._relief.begin(places, (), lambda failure: self._replaced(name, number, failure))

    def _places(self, name: str) -> list[int]:
        """Of the workers that are meant."""
        places = sorted({child.index for child in self._crew.workers()})
        if name == "workers":
            return places
        word, _, place = name.partition(" ")
        return [int(place)] if word == "worker" and place.isdigit() and int(place) in places else []

    def _replaced(self, name: str, number: int, failure: str) -> None:
        if failure:
            self._crew.note(f"{name} was not replaced, everything is as before: {failure}")
        self._answer(number, failure)

    def _answer(self, number: int, failure: str) -> None:
        self._crew.tell_control({"event": "done", "number": number, "failure": failure})
