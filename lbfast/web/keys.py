"""API keys: shown once, kept as a digest, with a role and an end."""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lbfast.web.roles import check_role
from lbfast.web.said import said
from lbfast.web.store import Clock, now

PREFIX: Final = "lbf_"
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{0,100}")


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept: what it may do, not what it is."""

    id: str
    role: str
    label: str
    created: str
    created_by: str
    expires: str | None
    used: str | None


class ApiKeys:
    """All of them, in the store."""

    def __init__(self, store: sqlite3.Connection, clock: Clock = now) -> None:
        self._store = store
        self._clock = clock

    def create(
        self, role: str, by: str, label: str = "", lives: timedelta | None = None, secret: str | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which nobody can read again; ValueError for a bad role or label."""
        check_role(role)
        if not _LABEL.fullmatch(label):
            raise ValueError(said("a label has at most 100 characters, none of them a control character"))
        identity, secret = secrets.token_hex(4), secret or PREFIX + secrets.token_urlsafe(32)
        moment = self._clock()
        expires = (moment + lives).isoformat(timespec="seconds") if lives else None
        self._store.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (identity, _digest(secret), role, label, moment.isoformat(timespec="seconds"), by, expires),
        )
        key = self.find(identity)
        assert key is not None
        return key, secret

    def check(self, secret: str) -> ApiKey | None:
        """The living key of a secret."""
        if not secret or len(secret) > 200:
            return None
        row = self._store.execute("SELECT * FROM keys WHERE digest = ?", (_digest(secret),)).fetchone()
        if row is None:
            return None
        key = _key(row)
        moment = self._clock()
        if key.expires is not None and datetime.fromisoformat(key.expires) <= moment:
            return None
        used = moment.isoformat(timespec="minutes")
        if key.used != used:
            self._store.execute("UPDATE keys SET used = ? WHERE id = ?", (used, key.id))
        return key

    def find(self, identity: str) -> ApiKey | None:
        row = self._store.execute("SELECT * FROM keys WHERE id = ?", (identity,)).fetchone()
        return _key(row) if row else None

    def all(self) -> list[ApiKey]:
        return [_key(row) for row in self._store.execute("SELECT * FROM keys ORDER BY created, id")]

    def revoke(self, identity: str) -> bool:
        """Whether there was such a key."""
        return self._store.execute("DELETE FROM keys WHERE id = ?", (identity,)).rowcount == 1


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _key(row: sqlite3.Row) -> ApiKey:
    names = ("id", "role", "label", "created", "created_by", "expires", "used")
    return ApiKey(*(row[name] for name in names))
