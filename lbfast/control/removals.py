"""Removed real servers whose connections may go on for a while: cut when their time is up, whoever was restarted since.

Kept as drain deadlines are: a wall-clock time, of which never more than its length is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from lbfast.config.aside import keep_aside
from lbfast.config.files import write_atomically
from lbfast.control.engine import Clock, TableFace, Timer, Timers

NAME: Final = "removals.json"
_LOST: Final = "connections of servers that were removed gently are not cut at their deadline any more"


@dataclass(frozen=True)
class Removal:
    """A server that is in the configuration no more."""

    slot: int
    id: str  # hex
    label: str  # of service and real server, for people
    deadline_at: str  # ISO 8601 with zone
    length: float  # seconds

    def remaining(self, now: datetime) -> float:
        left = (datetime.fromisoformat(self.deadline_at) - now).total_seconds()
        return min(max(0.0, left), self.length)


def decode_removals(document: Any) -> list[Removal]:
    """What ``Removals`` wrote; an exception for anything else."""
    found = [
        Removal(int(it["slot"]), str(it["id"]), str(it["label"]), str(it["deadline_at"]), float(it["length"]))
        for it in document
    ]
    for each in found:
        if datetime.fromisoformat(each.deadline_at).tzinfo is None or not each.length >= 0:
            raise ValueError("no time zone, or a length below 0")
    return found


class Removals:
    """``placed()``: the slots that the running configuration uses; ``announce(text)`` tells operators."""

    def __init__(
        self,
        state_dir: Path,
        table: TableFace,
        clock: Clock,
        placed: Callable[[], Collection[int]],
        announce: Callable[[str], None],
    ) -> None:
        self._path = state_dir / NAME
        self._table = table
        self._clock = clock
        self._placed = placed
        self._announce = announce
        self._timers: dict[Removal, Timer] = {}

    def start(self, timers: Timers) -> None:
        """Go on with what is kept."""
        if damage := keep_aside(self._path, decode_removals, _LOST):
            self._announce(damage)
        try:
            kept = decode_removals(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            return  # told above
        for removal in kept:
            self._watch(removal, timers)

    def add(self, removed: Iterable[tuple[int, str]], length: float, timers: Timers) -> None:
        """Slots and labels of servers that have just been removed."""
        until = (self._clock.wall() + timedelta(seconds=length)).isoformat()
        for slot, label in removed:
            self._watch(Removal(slot, self._table.real(slot)["id"].hex(), label, until, length), timers)
        self._keep()

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def _watch(self, removal: Removal, timers: Timers) -> None:
        if removal not in self._timers and self._is_gone(removal):
            delay = removal.remaining(self._clock.wall())
            self._timers[removal] = timers.call_later(delay, lambda: self._cut(removal))

    def _is_gone(self, removal: Removal) -> bool:
        """Still the same server in its slot, and still removed."""
        return removal.slot not in self._placed() and self._table.real(removal.slot)["id"].hex() == removal.id

    def _cut(self, removal: Removal) -> None:
        del self._timers[removal]
        left = self._table.real(removal.slot)["connections"]
        if self._is_gone(removal) and left:
            self._table.cut(removal.slot)
            self._announce(f"{removal.label} was removed; its time is up: {left} connections are cut")
        self._keep()

    def _keep(self) -> None:
        try:
            if self._timers:
                write_atomically(self._path, json.dumps([asdict(it) for it in self._timers]).encode(), mode=0o640)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            self._announce(f"{self._path} cannot be written ({error.strerror}): after a restart {_LOST}")
