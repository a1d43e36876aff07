"""Control's line to the ha process, and whether this box may be edited.

The ha process answers on its own unix socket in the framing of the control
protocol.  It is only there when there is a pair, or may be one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from lbfast.config.former import Former, load_former
from lbfast.control.protocol import MAX_REQUEST, ControlError, decode_answer

SOCKET_NAME: Final = "ha.sock"
START_S: Final = 15.0
Result = dict[str, Any]

STANDALONE: Final[Mapping[str, Any]] = {
    "role": "standalone",
    "state": "active",
    "ready": False,
    "reasons": ["this box has no peer"],
    "peer": None,
    "replication": {"lag_entries": None, "lag_ms": None},
    "former": None,
}


class PairLine:
    """Questions to the ha process.  ``start`` asks the supervisor to run it."""

    def __init__(self, runtime_dir: Path, state_dir: Path, start: Callable[[], None]) -> None:
        self._path = runtime_dir / SOCKET_NAME
        self._card = runtime_dir / "ha.json"  # who this box is at the moment, written by the ha process
        self._state_dir = state_dir
        self.start = start

    @property
    def is_paired(self) -> bool:
        return (self._state_dir / "pair.json").exists()

    @property
    def former(self) -> Former | None:
        """Who has the service addresses since the pair of this box has ended."""
        return None if self.is_paired else load_former(self._state_dir)

    async def ask(self, verb: str, timeout: float = 30.0, **args: Any) -> Result:
        """Its answer; ControlError ``refused`` when it is not there."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=2 * MAX_REQUEST)
                try:
                    writer.write(json.dumps({"verb": verb, "args": args}).encode() + b"\n")
                    await writer.drain()
                    answer = await reader.readline()
                finally:
                    writer.close()
        except OSError as error:
            if not self.is_paired:  # so none need run
                raise ControlError("refused", "this box has no peer; `lbfast ha pair` makes a pair") from None
            raise ControlError("refused", f"the ha process does not answer: {error.strerror or error}") from None
        except TimeoutError:
            raise ControlError("refused", f"the ha process did not answer within {timeout:g} s") from None
        result: Result = decode_answer(answer)
        return result

    def check_edit(self, *, on_active: bool) -> None:
        """ControlError when this box is not the one to edit; it says which one is.

        The configuration is the primary's, as long as it is heard; persistence entries are the active box's.
        """
        if (found := self._read_card()) is None:
            return
        if on_active and not found["active"] and found["heard"]:
            raise ControlError("refused", f"this box is passive; do it on the active one, {found['peer']}")
        if not on_active and found["role"] == "secondary" and found["heard"]:
            raise ControlError("refused", f"this box is the secondary; do it on the primary, {found['peer']}")

    def edited_on(self) -> str | None:
        """The address of the box where the configuration is edited, unless that is this one."""
        found = self._read_card()
        return found["peer"] if found and found["role"] == "secondary" and found["heard"] else None

    def _read_card(self) -> Result | None:
        """None without a peer, and while the ha process is just being replaced."""
        if not self.is_paired:
            return None
        try:
            found = json.loads(self._card.read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    async def commit_both(
        self, wish: Any, ids: list[list[str]], now: datetime, commit: Callable[[], Awaitable[Result]]
    ) -> Result:
        """The peer first, then this box; if this box cannot, the peer goes back."""
        await self.ask(
            "replicate",
            100.0,
            text=wish.text,
            ids=json.dumps(ids),
            file=wish.file,
            by=wish.by,
            reason=wish.reason,
            removed=wish.removed,
            version=json.dumps(asdict(wish.kept)),
            **({} if wish.waits is None else {"waits": json.dumps(wish.waits.as_told(now))}),
        )
        try:
            result = await commit()
        except BaseException:
            await self.ask("replicated", 100.0, ok=False)
            raise
        await self.ask("replicated", ok=True)
        return result

    async def confirmed(self) -> None:
        """What waited here stands, and the peer should know; without an answer it does within a second or two."""
        if self.is_paired:
            with suppress(ControlError):
                await self.ask("confirmed", 2.0)

    async def status(self) -> Result:
        """Standalone without a pair, whether or not an ha process waits for one."""
        if self.is_paired:
            return await self.ask("status", 5.0)
        if (former := self.former) is None:
            return dict(STANDALONE)
        reasons = [*STANDALONE["reasons"], former.words]
        return {**STANDALONE, "state": "passive", "reasons": reasons, "former": former.report}

    async def ensure_running(self) -> None:
        """Have the supervisor start it, and wait until it answers."""
        if not self._path.exists():
            self.start()
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await self.ask("status", 5.0)
                    return
                except ControlError:
                    await asyncio.sleep(0.05)
