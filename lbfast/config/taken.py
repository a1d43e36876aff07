"""The operator's file as this box last took it: by this a start knows whether it was edited since.

Of this box alone: in a pair the history is that of both, and the other box's file is another one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lbfast.config.files import read_regular, write_atomically

NAME = "taken_file.json"
_MOST_BYTES = 1 << 16


def note_taken(state_dir: Path, file: str, text: str) -> None:
    """From now on this file is no news with this text; OSError when that cannot be kept."""
    document = json.dumps({"file": os.path.abspath(file), "digest": _digest(text)})
    write_atomically(state_dir / NAME, document.encode(), mode=0o640)


def is_as_taken(state_dir: Path, file: str, text: str) -> bool | None:
    """Whether it still says what it said; None when nothing is known of this file."""
    found = _load(state_dir)
    return found.get("digest") == _digest(text) if found.get("file") == os.path.abspath(file) else None


def is_file_known(state_dir: Path, file: str) -> bool:
    """Whether it was the last that was taken, whatever it says now."""
    return bool(_load(state_dir).get("file") == os.path.abspath(file))


def _load(state_dir: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(state_dir / NAME, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
