"""The one-time code that lets the first user choose a password.

The code lies in a file that only root and the web process can read, so that the console can show the link again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from lbfast.web.store import Clock, now

CODE_FILE: Final = "setup-code"
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else


class SetupCode:
    """At most one is valid at a time."""

    def __init__(self, store: sqlite3.Connection, folder: Path, clock: Clock = now) -> None:
        self._store = store
        self._path = folder / CODE_FILE
        self._clock = clock

    def ensure(self) -> str:
        """The code that is valid; a new one unless the kept one still is."""
        kept = self._read()
        if kept and self.is_valid(kept):
            return kept
        code = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(code + "\n")
        self._store.execute("DELETE FROM setup")
        self._store.execute(
            "INSERT INTO setup VALUES (?, ?)", (_digest(code), self._clock().isoformat(timespec="seconds"))
        )
        return code

    def is_valid(self, code: str) -> bool:
        found = self._store.execute("SELECT 1 FROM setup WHERE digest = ?", (_digest(code.strip().lower()),))
        return found.fetchone() is not None

    def use(self, code: str) -> bool:
        """Whether it was valid; it is not any more."""
        digest = _digest(code.strip().lower())
        used = self._store.execute("DELETE FROM setup WHERE digest = ?", (digest,)).rowcount == 1
        if used:
            self.forget()
        return used

    def forget(self) -> None:
        """A password was set another way."""
        self._store.execute("DELETE FROM setup")
        self._path.unlink(missing_ok=True)

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()
