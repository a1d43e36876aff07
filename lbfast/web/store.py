"""The web interface's database: users, browser sessions, API keys, switches, the setup code.  One SQLite
file.

The web process and ``lbfast passwd`` on the console use it at the same time; SQLite's locks order them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lbfast.control.protocol import state_dir

FOLDER: Final = "web"
NAME: Final = "web.db"

Clock = Callable[[], datetime]
"""The wall clock; aware, so that what is kept means the same in every zone."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT, totp TEXT, totp_used INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL, changed TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    digest TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users ON DELETE CASCADE, csrf TEXT NOT NULL,
    created REAL NOT NULL, seen REAL NOT NULL, source TEXT NOT NULL, agent TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, role TEXT NOT NULL, label TEXT NOT NULL,
    created TEXT NOT NULL, created_by TEXT NOT NULL, expires TEXT, used TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS switches (
    name TEXT PRIMARY KEY, value TEXT NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS setup (digest TEXT PRIMARY KEY, created TEXT NOT NULL) STRICT;
"""


def now() -> datetime:
    return datetime.now(UTC)


def folder() -> Path:
    """Where the web interface keeps its things."""
    return state_dir() / FOLDER


def open_store(place: Path | None = None) -> sqlite3.Connection:
    """The database, made unless it is there; OSError or sqlite3.Error when it cannot be used."""
    place = place or folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / NAME
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    store = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    store.row_factory = sqlite3.Row
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = FULL")
    store.execute("PRAGMA foreign_keys = ON")
    store.executescript(_SCHEMA)
    return store
