"""The password of the web user ``loadbalancer`` as pairing needs it: how it was hashed, and to what.

Read from the web interface's database, so that it counts whether the web process runs or not.  Only read: SQLite keeps
the files beside the database in the hands of the database's owner, also when root is who reads.
"""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError

from lbfast.ha.password import Challenge
from lbfast.web.store import FOLDER, NAME
from lbfast.web.users import FIRST_USER

_WAIT_S: Final = 2.0
_LEAST_HASH: Final = 32  # bytes


@dataclass(frozen=True)
class WebUser:
    """A ``PasswordStore``."""

    state_dir: Path

    def challenge(self) -> Challenge | None:
        found = _read(self.state_dir / FOLDER / NAME)
        return None if found is None else found[0]

    def verifier(self) -> bytes:
        found = _read(self.state_dir / FOLDER / NAME)
        return b"" if found is None else found[1]


def _read(path: Path) -> tuple[Challenge, bytes] | None:
    """None without a database, a user or a password, and also when none can be read now."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_WAIT_S)) as store:
            row = store.execute("SELECT password FROM users WHERE name = ?", (FIRST_USER,)).fetchone()
    except sqlite3.Error:
        return None
    return parse(row[0]) if row and isinstance(row[0], str) else None


def parse(hashed: str) -> tuple[Challenge, bytes] | None:
    """The parts of ``$argon2id$v=19$m=..,t=..,p=..$salt$hash``; None for anything else."""
    try:
        costs = extract_parameters(hashed)
        salt, raw = (base64.b64decode(part + "=" * (-len(part) % 4), validate=True) for part in hashed.split("$")[4:6])
    except (InvalidHashError, ValueError):
        return None
    if costs.type is not Type.ID or costs.version != 19 or len(raw) < _LEAST_HASH:
        return None
    whose = f"of the user {FIRST_USER}"
    parts = (costs.time_cost, costs.memory_cost, costs.parallelism, len(raw))
    return Challenge(salt, whose, "argon2id", *parts), raw
