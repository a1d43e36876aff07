"""The users: names, roles, passwords, second factors.  Every method is one transaction."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Final

from lbfast.web.passwords import hash_password, is_password, needs_rehash
from lbfast.web.roles import CONFIGURE, check_role
from lbfast.web.said import said
from lbfast.web.store import Clock, now

FIRST_USER: Final = "loadbalancer"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class UserFault(Exception):
    """What was asked of the users cannot be done; the text is for people."""


@dataclass(frozen=True)
class User:
    """``has_password``: False until the setup link was used or ``lbfast passwd`` was run."""

    name: str
    role: str
    has_password: bool
    totp: str | None
    created: str
    changed: str


class Users:
    """All of them, in the store."""

    def __init__(self, store: sqlite3.Connection, clock: Clock = now) -> None:
        self._store = store
        self._clock = clock

    def ensure_first(self) -> None:
        """The user of the guide exists from the start, without a password."""
        if not self._store.execute("SELECT 1 FROM users LIMIT 1").fetchone():
            self.add(FIRST_USER, CONFIGURE)

    def needs_setup(self) -> bool:
        """Nobody who may configure can log in yet."""
        found = self._store.execute("SELECT 1 FROM users WHERE password IS NOT NULL AND role = ? LIMIT 1", (CONFIGURE,))
        return found.fetchone() is None

    def all(self) -> list[User]:
        return [_user(row) for row in self._store.execute("SELECT * FROM users ORDER BY name")]

    def find(self, name: str) -> User | None:
        row = self._store.execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
        return _user(row) if row else None

    def get(self, name: str) -> User:
        user = self.find(name)
        if user is None:
            names = ", ".join(it.name for it in self.all())
            raise UserFault(said("there is no user %(name)s; there are %(names)s", name=repr(name[:64]), names=names))
        return user

    def add(self, name: str, role: str) -> User:
        """A user without a password, who cannot log in yet."""
        if not _NAME.fullmatch(name):
            raise UserFault(said("A user name has 1 to 64 letters, digits, dots, dashes, underscores or @."))
        check_role(role)
        moment = self._clock().isoformat(timespec="seconds")
        try:
            self._store.execute(
                "INSERT INTO users (name, role, created, changed) VALUES (?, ?, ?, ?)", (name, role, moment, moment)
            )
        except sqlite3.IntegrityError:
            raise UserFault(said("There is a user %(name)s already.", name=repr(name))) from None
        return self.get(name)

    def remove(self, name: str) -> None:
        """Their sessions end with them."""
        user = self.get(name)
        self._keep_a_configurer(
            user, said("%(name)s cannot be removed: nobody would be left who may configure.", name=name)
        )
        self._store.execute("DELETE FROM users WHERE name = ?", (name,))

    def set_role(self, name: str, role: str) -> None:
        user = self.get(name)
        check_role(role)
        if role != CONFIGURE:
            self._keep_a_configurer(
                user,
                said(
                    "%(name)s cannot be given the role %(role)s: nobody would be left who may configure.",
                    name=name,
                    role=role,
                ),
            )
        self._store.execute("UPDATE users SET role = ? WHERE name = ?", (role, name))

    def set_password(self, name: str, password: str) -> None:
        """Slow; ends every session of the user."""
        self.get(name)
        self.keep_hash(name, hash_password(password))

    def keep_hash(self, name: str, hashed: str) -> None:
        moment = self._clock().isoformat(timespec="seconds")
        self._store.execute("UPDATE users SET password = ?, changed = ? WHERE name = ?", (hashed, moment, name))
        self._store.execute("DELETE FROM sessions WHERE user = ?", (name,))
        self._store.execute("DELETE FROM setup")

    def check_password(self, name: str, password: str) -> bool:
        """Slow, and as slow for a name that there is not."""
        row = self._store.execute("SELECT password FROM users WHERE name = ?", (name,)).fetchone()
        hashed: str | None = row["password"] if row else None
        if not is_password(hashed, password) or hashed is None:
            return False
        if needs_rehash(hashed):
            self._store.execute("UPDATE users SET password = ? WHERE name = ?", (hash_password(password), name))
        return True

    def set_totp(self, name: str, secret: str | None) -> None:
        self.get(name)
        self._store.execute("UPDATE users SET totp = ?, totp_used = 0 WHERE name = ?", (secret, name))

    def use_totp(self, name: str, step: int) -> bool:
        """Whether this time step was not used before: a code that was seen must not work twice."""
        cursor = self._store.execute(
            "UPDATE users SET totp_used = ? WHERE name = ? AND totp_used < ?", (step, name, step)
        )
        return cursor.rowcount == 1

    def _keep_a_configurer(self, user: User, refusal: str) -> None:
        others = [it for it in self.all() if it.name != user.name and it.role == CONFIGURE and it.has_password]
        if user.role == CONFIGURE and not others:
            raise UserFault(refusal)


def _user(row: sqlite3.Row) -> User:
    has_password = row["password"] is not None
    return User(row["name"], row["role"], has_password, row["totp"], row["created"], row["changed"])
