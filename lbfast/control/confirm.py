"""Waits for a commit to be confirmed, whoever is restarted meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lbfast.config.aside import keep_aside
from lbfast.config.files import write_atomically
from lbfast.config.unconfirmed import (
    CONFIRMED_NAME,
    NAME,
    Unconfirmed,
    decode_unconfirmed,
    load_confirmed,
    load_unconfirmed,
)
from lbfast.control.engine import Clock, Timer, Timers

AGAIN_S: Final = 10.0
_LOST: Final = "a commit that waited to be confirmed stands, and does not revert by itself any more"


class Waiting:
    """What waits to be confirmed, on disk and on the clock; ``expired()`` is called at its deadline."""

    def __init__(self, state_dir: Path, clock: Clock, expired: Callable[[], None]) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._expired = expired
        self._timers: Timers | None = None
        self._deadline: Timer | None = None
        self.unconfirmed: Unconfirmed | None = None

    def start(self, timers: Timers, version: int, least: float) -> str | None:
        """Take up what a control process before us left, no sooner than in ``least`` seconds; what was damaged."""
        self._timers = timers
        damage = keep_aside(self._state_dir / NAME, decode_unconfirmed, _LOST)
        kept = load_unconfirmed(self._state_dir)
        # A power cut right after a confirmation may bring the file back that it has removed.
        if kept is not None and (kept.version != version or load_confirmed(self._state_dir)[0] == version):
            (self._state_dir / NAME).unlink(missing_ok=True)
            kept = None
        self._watch(kept, least)
        return damage

    def keep(self, unconfirmed: Unconfirmed) -> None:
        """Before its version runs; OSError when it cannot be written."""
        self._state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._write(NAME, asdict(unconfirmed))
        (self._state_dir / CONFIRMED_NAME).unlink(missing_ok=True)  # a number may be used again

    def begin(self, unconfirmed: Unconfirmed | None) -> None:
        """Its version runs now, or one that waits for nobody."""
        if unconfirmed is None:
            (self._state_dir / NAME).unlink(missing_ok=True)
        self._watch(unconfirmed)

    def restore(self) -> None:
        """The version that was kept for does not run: what waited before waits on."""
        with suppress(OSError):
            if self.unconfirmed is None:
                (self._state_dir / NAME).unlink(missing_ok=True)
            else:
                self._write(NAME, asdict(self.unconfirmed))

    def confirm(self, by: str, *, for_peer: bool) -> None:
        """It stands; OSError when that cannot be kept for a peer to hear of: then it waits as before."""
        if self.unconfirmed is None:
            return
        try:
            self._write(CONFIRMED_NAME, {"version": self.unconfirmed.version, "by": by})
        except OSError:
            if for_peer:
                raise
        self.begin(None)

    def put_off(self) -> None:
        """It cannot be decided at the moment."""
        self._watch(self.unconfirmed, AGAIN_S)

    def stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _write(self, name: str, document: dict[str, Any]) -> None:
        write_atomically(self._state_dir / name, json.dumps(document).encode(), mode=0o600)

    def _watch(self, unconfirmed: Unconfirmed | None, least: float = 0.0) -> None:
        self.stop()
        self.unconfirmed, self._deadline = unconfirmed, None
        if unconfirmed is not None and self._timers is not None:
            delay = max(least, unconfirmed.remaining(self._clock.wall()))
            self._deadline = self._timers.call_later(delay, self._expired)
