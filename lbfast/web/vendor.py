"""The switch of the vendor's API, on unless somebody has switched it off, and the login that its `api enable` sets.

It lies in the store, where users and keys are: the web process and the console use it, and it outlives both.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lbfast.web.audit import Audit
from lbfast.web.keys import ApiKeys
from lbfast.web.passwords import why_weak
from lbfast.web.roles import CONFIGURE
from lbfast.web.store import Clock, now
from lbfast.web.users import UserFault, Users

SWITCH: Final = "vendor_api"
KEY_LABEL: Final = "lbcli --action api"
_KEY: Final = re.compile(r"[!-~]{32,200}")
ON_AGAIN: Final = (
    "`lbcli --action api --function enable` on the appliance, or Local Configuration > API Keys, switches it on"
)


@dataclass(frozen=True)
class Switch:
    """``by`` and ``at`` are empty until somebody has set it."""

    is_on: bool
    by: str = ""
    at: str = ""

    @property
    def word(self) -> str:
        return "on" if self.is_on else "off"


class VendorApi:
    """The switch and the one key that belongs to it."""

    def __init__(self, store: sqlite3.Connection, clock: Clock = now) -> None:
        self._store = store
        self._clock = clock

    def switch(self) -> Switch:
        row = self._store.execute("SELECT value, by, at FROM switches WHERE name = ?", (SWITCH,)).fetchone()
        return Switch(row["value"] == "on", row["by"], row["at"]) if row else Switch(True)

    def set(self, is_on: bool, by: str) -> None:
        values = (SWITCH, "on" if is_on else "off", by, self._clock().isoformat(timespec="seconds"))
        self._store.execute("INSERT OR REPLACE INTO switches VALUES (?, ?, ?, ?)", values)

    def set_login(self, options: Mapping[str, str], by: str) -> str:
        """User and key as `api enable` gives them, both for configuring; the key, made unless it was given.

        UserFault when one cannot be.  Slow: a password is hashed.
        """
        name, password = options.get("username", ""), options.get("password", "")
        if not name or not password:
            raise UserFault(f"{'password' if name else 'username'} is missing: api enable needs both or neither")
        secret = options.get("apikey") or secrets.token_hex(16)
        if not _KEY.fullmatch(secret):
            raise UserFault("apikey: expected 32 to 200 letters, digits or signs without spaces; left out, one is made")
        if weak := why_weak(password, name):
            raise UserFault(f"password: {weak}")
        users, keys = Users(self._store, self._clock), ApiKeys(self._store, self._clock)
        if users.find(name) is None:
            users.add(name, CONFIGURE)
        users.set_password(name, password)
        if keys.check(secret) is None:
            for key in keys.all():
                if key.label == KEY_LABEL:
                    keys.revoke(key.id)  # the vendor has one key: another one replaces it
            keys.create(CONFIGURE, by, KEY_LABEL, secret=secret)
        return secret


def carry_out(
    store: sqlite3.Connection, audit: Audit, options: Mapping[str, str], by: str, source: str, *, is_console: bool
) -> dict[str, Any]:
    """The vendor's verb `api`; UserFault says why it cannot be."""
    api = VendorApi(store)
    function = options.get("function", "get")
    if function not in ("enable", "disable", "get"):
        raise UserFault(f"function: expected enable, disable or get, found {function[:40]!r}")
    answer: dict[str, Any] = {}
    if function == "enable" and any(options.get(name) for name in ("username", "password", "apikey")):
        if not is_console:
            raise UserFault(
                "username: a login for the API is set with lbcli on the appliance, with `lbfast passwd` and "
                "`lbfast apikey create`, or on the web interface"
            )
        secret = api.set_login(options, by)
        answer = {"username": options["username"], "apikey": secret}
    if function != "get":
        api.set(function == "enable", by)
        audit.add(by, f"api v2 {function}d", answer.get("username", ""), source)
    switch = api.switch()
    since = f", by {switch.by} at {switch.at}" if switch.by else ""
    return {"message": f"the API is {switch.word}{since}", "enabled": switch.word, **answer}
