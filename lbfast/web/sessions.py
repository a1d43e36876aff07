"""Browser sessions: a random id in a cookie, its digest here, an idle and an absolute end."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Final

from lbfast.web.store import Clock, now

IDLE_S: Final = 30 * 60
ABSOLUTE_S: Final = 12 * 3600
_TOUCH_S: Final = 30  # a session's last use is written no more often than this
MOST_PER_USER: Final = 20


@dataclass(frozen=True)
class Session:
    """``digest`` names it without giving it away."""

    digest: str
    user: str
    csrf: str
    created: float
    seen: float
    source: str
    agent: str


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class Sessions:
    """All of them, in the store."""

    def __init__(self, store: sqlite3.Connection, clock: Clock = now) -> None:
        self._store = store
        self._clock = clock

    def begin(self, user: str, source: str, agent: str) -> str:
        """A new session; the token for the cookie.  Old ones of the user beyond a limit end."""
        self.sweep()
        token = secrets.token_urlsafe(32)
        moment = self._clock().timestamp()
        self._store.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (digest_of(token), user, secrets.token_urlsafe(24), moment, moment, source[:64], agent[:200]),
        )
        self._store.execute(
            "DELETE FROM sessions WHERE user = ?1 AND digest NOT IN "
            "(SELECT digest FROM sessions WHERE user = ?1 ORDER BY created DESC LIMIT ?2)",
            (user, MOST_PER_USER),
        )
        return token

    def find(self, token: str, *, touch: bool = True) -> Session | None:
        """The living session of a cookie.  ``touch``: it counts as use."""
        if not token or len(token) > 128:
            return None
        row = self._store.execute("SELECT * FROM sessions WHERE digest = ?", (digest_of(token),)).fetchone()
        if row is None:
            return None
        session = Session(*row)
        moment = self._clock().timestamp()
        if moment - session.seen > IDLE_S or moment - session.created > ABSOLUTE_S:
            self.end(session.digest)
            return None
        if touch and moment - session.seen > _TOUCH_S:
            self._store.execute("UPDATE sessions SET seen = ? WHERE digest = ?", (moment, session.digest))
        return session

    def is_alive(self, digest: str) -> bool:
        """Without counting as use."""
        row = self._store.execute("SELECT created, seen FROM sessions WHERE digest = ?", (digest,)).fetchone()
        moment = self._clock().timestamp()
        return row is not None and moment - row["seen"] <= IDLE_S and moment - row["created"] <= ABSOLUTE_S

    def of_user(self, user: str) -> list[Session]:
        self.sweep()
        rows = self._store.execute("SELECT * FROM sessions WHERE user = ? ORDER BY seen DESC", (user,))
        return [Session(*row) for row in rows]

    def end(self, digest: str) -> None:
        self._store.execute("DELETE FROM sessions WHERE digest = ?", (digest,))

    def end_others(self, user: str, keep: str) -> None:
        self._store.execute("DELETE FROM sessions WHERE user = ? AND digest <> ?", (user, keep))

    def sweep(self) -> None:
        moment = self._clock().timestamp()
        self._store.execute(
            "DELETE FROM sessions WHERE seen < ? OR created < ?", (moment - IDLE_S, moment - ABSOLUTE_S)
        )
