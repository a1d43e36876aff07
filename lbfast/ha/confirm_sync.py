"""Tells the peer that a commit which waits to be confirmed was confirmed: one that was stands, whoever dies.

That it waits travels with the commit itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from lbfast.config.unconfirmed import load_confirmed, load_unconfirmed
from lbfast.control.protocol import ControlError

_SURE: Final = 2  # descriptions in a row: a commit writes its version before it writes that it waits


class ConfirmSync:
    """``ask``: this box's control."""

    def __init__(self, state_dir: Path, ask: Callable[..., Awaitable[dict[str, Any]]]) -> None:
        self._state_dir = state_dir
        self._ask = ask
        self._decided = 0  # how often in a row the primary waited for nobody, and we did

    def facts(self) -> dict[str, Any]:
        version, by = load_confirmed(self._state_dir)
        waits = load_unconfirmed(self._state_dir)
        return {"confirmed": version, "confirmed_by": by, "waits": 0 if waits is None else waits.version}

    async def compare(self, facts: Mapping[str, Any], *, is_primary: bool) -> None:
        """The peer, whose history is ours, has described itself.  The primary decides, also when its record is lost."""
        waits = load_unconfirmed(self._state_dir)
        is_decided = waits is not None and not is_primary and facts.get("waits") == 0
        self._decided = self._decided + 1 if is_decided else 0
        if waits is not None and (facts.get("confirmed") == waits.version or self._decided >= _SURE):
            with suppress(ControlError):  # it is asked again with the next facts
                await self._ask("replica_confirm", version=waits.version, by=str(facts.get("confirmed_by", "")))
