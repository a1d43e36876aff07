"""An upgrade asked for in the browser: it replaces this very process, so what came of it is kept in a file.

Who reads the file after the upgrade is another web process: a note that it finds under way has succeeded if the control
process is another one, too; else only this process was replaced, and nobody heard the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lbfast.web.client import AsyncClient, ControlError, ControlUnavailable

NAME: Final = "upgrade.json"
UPGRADE_S: Final = 240.0  # the trial and the rest
GRACE_S: Final = 30.0  # in which control may be away because it is being replaced


@dataclass(frozen=True)
class Note:
    """``state``: under_way, done or refused.  ``before``, ``started``: the version, control's start."""

    state: str
    by: str
    at: str
    before: str
    started: str
    version: str = ""
    why: str = ""


@dataclass
class Upgrades:
    """One at a time."""

    folder: Path
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self, client: AsyncClient, by: str, at: str, about: Mapping[str, Any]) -> None:
        note = Note("under_way", by, at, str(about["version"]), str(about["started"]))
        self._write(note)
        self._task = asyncio.create_task(self._run(client, note))

    async def _run(self, client: AsyncClient, note: Note) -> None:
        """A refusal comes back to us, because nobody was replaced; of a success we may not live to hear."""
        try:
            done: dict[str, Any] = await client.call("upgrade", note.by, UPGRADE_S)
            self._write(replace(note, state="done", version=str(done.get("version", ""))))
        except ControlError as error:
            self._write(replace(note, state="refused", why=error.message))
        except ControlUnavailable as error:
            await asyncio.sleep(GRACE_S)  # control was replaced under our question: we are next
            self._write(replace(note, state="refused", why=f"no answer: {error}"))

    def read(self, about: Mapping[str, Any]) -> Note | None:
        """The last upgrade.  ``about``: what runs now."""
        try:
            note = Note(**json.loads((self.folder / NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        if note.state == "under_way" and not self.is_running:
            if about.get("started", note.started) != note.started:
                return replace(note, state="done", version=str(about["version"]))
            return replace(note, state="refused", why="the answer was lost, because the web process was replaced")
        return note

    def _write(self, note: Note) -> None:
        new = self.folder / (NAME + ".new")
        new.write_text(json.dumps(asdict(note)), encoding="utf-8")
        os.replace(new, self.folder / NAME)
