"""The listeners and stick tables of one worker, as commits come and go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from lbfast._stick import StickTable
from lbfast.supervisor.channel import Message

Place = tuple[str, int]
"""Address and port."""


class LoopFace(Protocol):
    """What this needs of ``_splice.Loop``."""

    def set_stick(self, service: int, table: StickTable | None) -> None: ...
    def add_listener(self, fd: int, service: int, port: int) -> None: ...
    def remove_listener(self, fd: int) -> None: ...


class Doors:
    """Follows ``listen`` and ``unlisten`` messages; owns the listeners' descriptors."""

    def __init__(self, loop: LoopFace) -> None:
        self._loop = loop
        self._fds: dict[Place, list[int]] = {}

    @property
    def places(self) -> Mapping[Place, list[int]]:
        return self._fds

    def open(self, place: Place, fd: int, service: int) -> None:
        """Accept there from now on, for this service slot; a socket that is open already stays as it is."""
        known = self._fds.setdefault(place, [])
        if any(os.path.sameopenfile(fd, other) for other in known):
            os.close(fd)
            return
        self._loop.add_listener(fd, service, place[1])
        known.append(fd)

    def take(self, message: Message, fds: Sequence[int]) -> None:
        """``sticks``: slots, a table each in ``fds``; or ``listeners``, or ``moved``: [address, port, service slot]."""
        for slot, fd in zip(message.get("sticks", ()), fds, strict=False):
            self._loop.set_stick(slot, StickTable.attach(fd))
            os.close(fd)  # attach has its own
        for (address, port, service), fd in zip(message.get("listeners", ()), fds, strict=False):
            self.open((address, port), fd, service)
        for address, port, service in message.get("moved", ()):
            for fd in self._fds.get((address, port), ()):
                self._loop.remove_listener(fd)
                self._loop.add_listener(fd, service, port)

    def give_up(self, message: Message) -> None:
        """``listeners``: [address, port]; ``sticks``: slots of services that have no table any more."""
        for address, port in message.get("listeners", ()):
            for fd in self._fds.pop((address, port), ()):
                self._loop.remove_listener(fd)
                os.close(fd)
        for slot in message.get("sticks", ()):
            self._loop.set_stick(slot, None)
