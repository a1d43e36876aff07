"""What a backup holds and how each part comes back: configuration, ids, admin state, users, certificates, versions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from lbfast.config.files import write_atomically
from lbfast.config.id_file import FILE_NAME, load_ids, save_ids
from lbfast.config.ids import KnownIds
from lbfast.config.publish import Placed
from lbfast.control.backup_file import Backup, BackupError
from lbfast.control.engine import persistence_table
from lbfast.control.marks import Marks, marks_from_json
from lbfast.control.statefile import NAME as MARKS

if TYPE_CHECKING:
    from lbfast.control.engine import Engine

CONFIGURATION: Final = "lbfast.toml"
USERS: Final = "users.json"
WEB: Final = "web"
_DATABASE: Final = "web.db"
_TABLES: Final = ("users", "keys")
_PLAIN: Final = (FILE_NAME, MARKS)


def collect_files(state_dir: Path, text: str) -> dict[str, bytes]:
    """Everything that is there; what was never made is left out."""
    files = {CONFIGURATION: text.encode()}
    for name in _PLAIN:
        if (state_dir / name).is_file():
            files[name] = (state_dir / name).read_bytes()
    for folder, pattern in (("versions", "*.*"), (WEB, "*.pem")):
        for path in sorted((state_dir / folder).glob(pattern)):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                files[f"{folder}/{path.name}"] = path.read_bytes()
    users = _read_users(state_dir / WEB / _DATABASE)
    if users is not None:
        files[USERS] = json.dumps(users).encode()
    return files


def check_parts(backup: Backup) -> None:
    """BackupError when a part cannot be read: before anything is changed."""
    _ids_of(backup)
    if MARKS in backup.files:
        _marks_of(backup)
    if USERS in backup.files:
        _users_of(backup)


def merge_ids(state_dir: Path, backup: Backup) -> None:
    """Ids of labels that this appliance does not know yet; those it knows stay its own."""
    kept = load_ids(state_dir / FILE_NAME)
    merged = KnownIds({**_ids_of(backup).ids, **kept.known.ids})
    if kept.writable and merged != kept.known:
        save_ids(state_dir / FILE_NAME, merged)


def apply_parts(engine: Engine, running: Placed, state_dir: Path, backup: Backup) -> list[str]:
    """Admin state, users, certificates; what to tell whoever restored."""
    notes = []
    if MARKS in backup.files:
        _apply_marks(engine, running, backup)
    if USERS in backup.files:
        notes += _write_users(state_dir / WEB / _DATABASE, _users_of(backup))
    pems = {name: data for name, data in backup.files.items() if name.startswith(f"{WEB}/") and name.endswith(".pem")}
    for name, data in pems.items():
        (state_dir / WEB).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(state_dir / name, data, mode=0o600)
    if pems:
        notes.append("the certificate of the web interface is used from its next start on")
    return notes


# --- admin state ----------------------------------------------------------------------------------


def _ids_of(backup: Backup) -> KnownIds:
    """The ids of the appliance that was saved, by label."""
    if FILE_NAME not in backup.files:
        return KnownIds()
    ids: dict[tuple[str, str], UUID] = {}
    try:
        for service, entry in json.loads(backup.files[FILE_NAME])["virtual_services"].items():
            if entry["id"] is not None:
                ids[service, ""] = UUID(entry["id"])
            for real, identity in entry["real_servers"].items():
                ids[service, real] = UUID(identity)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BackupError(f"{FILE_NAME} in the backup is damaged") from None
    return KnownIds(ids)


def _marks_of(backup: Backup) -> Marks:
    try:
        return marks_from_json(json.loads(backup.files[MARKS]))
    except (ValueError, RecursionError):
        raise BackupError(f"{MARKS} in the backup is damaged") from None


def _apply_marks(engine: Engine, running: Placed, backup: Backup) -> None:
    """The saved drains, halts, weights and pins, under the ids that the labels have here."""
    here = {(service.label, ""): service.id for service in running.config.virtual_services}
    for service in running.config.virtual_services:
        here |= {(service.label, real.label): real.id for real in service.real_servers}
    renamed = {old.hex: new.hex for key, old in _ids_of(backup).ids.items() if (new := here.get(key)) is not None}
    _drop_pins(engine, before=engine.book.marks)
    engine.book.file.replace(_translated(_marks_of(backup), renamed))
    engine.book.forget_deadlines()
    for _, real in engine.catalog.pairs():
        if real.key not in engine.book.marks.weights:
            engine.shared.table.set_weight(real.slot, real.weight)
    engine.book.restore(engine.catalog)


def _translated(marks: Marks, names: Mapping[str, str]) -> Marks:
    def name(key: str) -> str:
        return names.get(key, key)

    pins = {
        name(service): {client: replace(pin, real=name(pin.real)) for client, pin in clients.items()}
        for service, clients in marks.pins.items()
    }
    admin = {name(key): mark for key, mark in marks.admin.items()}
    weights = {name(key): mark for key, mark in marks.weights.items()}
    return replace(marks, admin=admin, weights=weights, pins=pins)


def _drop_pins(engine: Engine, before: Marks) -> None:
    for service in engine.catalog.services:
        stick = persistence_table(engine.shared, service)
        for client in before.pins.get(service.key, {}) if stick is not None else ():
            assert stick is not None
            stick.clear(client, None)


# --- users ----------------------------------------------------------------------------------------


def _read_users(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as store:
        store.row_factory = sqlite3.Row
        return {table: [dict(row) for row in store.execute(f"SELECT * FROM {table}")] for table in _TABLES}  # noqa: S608


def _users_of(backup: Backup) -> list[tuple[str, dict[str, Any]]]:
    """Rows with their table."""
    try:
        saved = json.loads(backup.text(USERS))
        rows = [(table, dict(row)) for table in _TABLES for row in saved[table]]
        if not saved["users"]:
            raise ValueError("no users")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BackupError(f"{USERS} in the backup is damaged") from None
    return rows


def _write_users(path: Path, rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Into the database that the web process has open; without one there is no web interface to log in to."""
    if not path.is_file():
        return ["the users were not restored: this appliance has had no web interface yet"]
    with closing(sqlite3.connect(path, timeout=5.0)) as store:
        try:
            with store:
                _end_sessions(store, rows)
                for table in _TABLES:
                    store.execute(f"DELETE FROM {table}")  # noqa: S608
                for table, row in rows:
                    _insert(store, table, row)
        except sqlite3.Error as error:
            raise OSError(f"the users could not be restored: {error}") from error
    return ["users and API keys are those of the backup; whose password or role differs has to log in again"]


def _end_sessions(store: sqlite3.Connection, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Of all but those whose password, role and second factor stay: who restores must be there to keep it."""
    before = {name: tuple(rest) for name, *rest in store.execute("SELECT name, password, role, totp FROM users")}
    users = [row for table, row in rows if table == "users" and isinstance(row.get("name"), str)]
    keys = ("password", "role", "totp")
    same = [row["name"] for row in users if before.get(row["name"]) == tuple(row.get(key) for key in keys)]
    store.execute(f"DELETE FROM sessions WHERE user NOT IN ({', '.join('?' * len(same))})", same)  # noqa: S608


def _insert(store: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    known = {found[1] for found in store.execute(f"PRAGMA table_info({table})")}
    kept = {key: value for key, value in row.items() if key in known}
    names, marks = ", ".join(kept), ", ".join("?" * len(kept))
    store.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(kept.values()))  # noqa: S608
