"""The web interface's database and audit log, for the verbs that use them from the console."""

from __future__ import annotations

import os
import pwd
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from lbfast.cli.errors import Refused
from lbfast.web.audit import Audit
from lbfast.web.ownership import keep_owner
from lbfast.web.store import folder, open_store


def audit(what: str, detail: str) -> None:
    Audit(folder()).add(who(), what, detail, "console")


def who() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@contextmanager
def web_store() -> Iterator[sqlite3.Connection]:
    """The web interface's database; what root makes here belongs to whom the folder belongs to."""
    try:
        store = open_store()
    except (OSError, sqlite3.Error) as error:
        raise Refused(f"{folder()} cannot be used ({error}); run as root, or set LBFAST_STATE_DIR") from None
    try:
        yield store
    finally:
        store.close()
        keep_owner(folder())
