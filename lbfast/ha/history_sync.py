"""Keeps the history the same on both boxes: each version with its number, author, time and text.

The files of the other box are compared by digests; what is missing or different is
fetched version by version, and control, the one writer of the history, is asked to
keep it.  What only this box knew is put aside, not thrown away.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lbfast.config.versions import VersionStore
from lbfast.control.protocol import ControlError

_FRESH_S = 1.0  # what changed so lately may change again without the directory's time telling
Document = dict[str, Any]
Question = Callable[[str, Document], Awaitable[Document | None]]


class HistorySync:
    """One per process.  ``ask``: this box's control."""

    def __init__(self, state_dir: Path, ask: Callable[..., Awaitable[Document]]) -> None:
        self._store = VersionStore(state_dir)
        self._ask = ask
        self._seen = -1
        self._seen_at = 0.0
        self._is_settled = False
        self._texts: dict[int, tuple[tuple[int, ...], str]] = {}  # what a file was, and its digest
        self._digest = ""
        self._taken = ("", "")  # the peer's and ours, when everything had been copied

    def digest(self) -> str:
        """Of the whole history; files are read again only when one has come or gone."""
        try:
            seen = self._store.directory.stat().st_mtime_ns
        except OSError:
            seen = 0
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._seen_at, self._is_settled = seen, now, False
        if self._is_settled:
            return self._digest
        self._is_settled = now - self._seen_at > _FRESH_S
        listed = json.dumps(self._listed(), sort_keys=True)
        self._digest = hashlib.sha256(listed.encode()).hexdigest()
        return self._digest

    def is_same(self, theirs: str) -> bool:
        """Or was copied, and a release that keeps more of a version only calls it differently."""
        ours = self.digest()
        return ours == theirs or self._taken == (theirs, ours)

    def _listed(self) -> list[Document]:
        """What tells one version from another, the oldest first."""
        return [
            {
                **{"number": it.number, "at": it.at, "by": it.by, "digest": self._text(it.number)},
                # Boxes that were started in the same second, each with a file of its own.
                **{"file": it.file, "reason": it.reason},
            }
            for it in reversed(self._store.all())
        ]

    def _text(self, number: int) -> str:
        """The digest of a version's text, made once: a hundred of them would keep heartbeats waiting."""
        stamp = self._store.stamp(number)
        known = self._texts.get(number)
        if known is None or known[0] != stamp:
            known = self._texts[number] = stamp, self._store.digest(number)
        return known[1]

    # --- the peer asks ------------------------------------------------------------

    async def on_history(self, _args: Document) -> Document:
        return {"ok": True, "versions": self._listed()}

    async def on_version(self, args: Document) -> Document:
        number = int(args["number"])
        version, text = self._store.get(number), self._store.text(number)
        if version is None or text is None:
            return {"ok": False, "message": f"version {number} is not kept any more"}
        return {"ok": True, "version": asdict(version), "text": text}

    # --- this box follows -----------------------------------------------------------

    async def copy(self, question: Question, theirs: str) -> bool:
        """Up to the version that runs, which has been committed; whether all is the same now.  ControlError."""
        answer = await question("history", {})
        if answer is None or answer.get("ok") is not True:
            return False
        ours = {it["number"]: it for it in self._listed()}
        numbers = [int(it["number"]) for it in answer["versions"]]
        for theirs_too in answer["versions"][:-1]:
            known = ours.get(theirs_too["number"])
            if known is not None and all(theirs_too.get(key) == value for key, value in known.items()):
                continue
            if not await self._fetch(question, int(theirs_too["number"])):
                return False
        await self._ask("replica_versions_keep", numbers=numbers)
        self._taken = (theirs, self.digest())
        return True

    async def _fetch(self, question: Question, number: int) -> bool:
        found = await question("version", {"number": number})
        if found is None or found.get("ok") is not True:
            return False
        try:
            await self._ask("replica_version_write", version=json.dumps(found["version"]), text=found["text"])
        except ControlError as error:
            raise ControlError(error.code, f"version {number} of the peer's history: {error.message}") from None
        return True
