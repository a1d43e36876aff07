"""Identities on disk: ``ids.json`` in the state directory, replaced atomically, never trusted blindly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from lbfast.config.aside import move_aside
from lbfast.config.files import write_atomically
from lbfast.config.ids import KnownIds, assign_ids
from lbfast.model.appliance import Config

FILE_NAME = "ids.json"
VERSION = 1


@dataclass(frozen=True)
class Remembered:
    """What ``load_ids`` found; ``warning`` says what was wrong, ``writable`` whether it may be replaced."""

    known: KnownIds
    warning: str | None = None
    writable: bool = True


def load_ids(path: Path) -> Remembered:
    """What is remembered; a damaged file is moved aside and reported, never a reason not to start."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Remembered(KnownIds())
    except OSError as error:
        return Remembered(KnownIds(), f"identities cannot be read: {path}: {error.strerror}", writable=False)
    try:
        return Remembered(_decode(json.loads(content)))
    except (ValueError, RecursionError) as error:
        return _set_aside(path, str(error))


def save_ids(path: Path, known: KnownIds) -> None:
    """Replace the file; after a crash it holds either the old or the new identities.  OSError when it cannot."""
    services: dict[str, dict[str, Any]] = {}
    for (service, real), identity in known.ids.items():
        entry = services.setdefault(service, {"id": None, "real_servers": {}})
        if real:
            entry["real_servers"][real] = str(identity)
        else:
            entry["id"] = str(identity)
    document = {"version": VERSION, "virtual_services": services}
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False).encode(), mode=0o600)


def keep_ids(config: Config, state_dir: Path) -> tuple[Config, list[str]]:
    """The configuration with identities on everything, kept for the next start, and what to warn of."""
    path = state_dir / FILE_NAME
    remembered = load_ids(path)
    warnings = [remembered.warning] if remembered.warning else []
    config, known = assign_ids(config, remembered.known)
    if known != remembered.known and remembered.writable:
        try:
            save_ids(path, known)
        except OSError as error:
            reason = f"{path}: {error.strerror}"
            warnings.append(f"identities cannot be kept, the next start makes new ones: {reason}")
    return config, warnings


def _decode(document: Any) -> KnownIds:
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"not a version {VERSION} file of identities")
    ids: dict[tuple[str, str], UUID] = {}
    try:
        for service, entry in document["virtual_services"].items():
            if entry["id"] is not None:
                ids[service, ""] = UUID(entry["id"])
            for real, identity in entry["real_servers"].items():
                ids[service, real] = UUID(identity)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the shape of a file of identities ({error!r})") from None
    return KnownIds(ids)


def _set_aside(path: Path, reason: str) -> Remembered:
    try:
        aside = move_aside(path)
    except OSError as error:
        warning = f"{path} is damaged ({reason}) and cannot be moved aside: {error.strerror}; identities are not kept"
        return Remembered(KnownIds(), warning, writable=False)
    return Remembered(KnownIds(), f"{path} is damaged ({reason}): moved to {aside.name}, identities are made anew")
