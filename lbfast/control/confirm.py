"""A commit that reverts by itself unless it is confirmed: kept in the state directory, so that nothing forgets it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lbfast.config.files import write_atomically

NAME = "confirm.json"


@dataclass(frozen=True)
class Unconfirmed:
    """Version ``version`` gives way to ``before`` at the deadline."""

    version: int
    before: int
    by: str
    deadline_at: str  # wall clock, ISO 8601 with zone
    length: float  # seconds

    def remaining(self, now: datetime) -> float:
        """Seconds left: from nothing to the whole length, however the clock has jumped."""
        left = (datetime.fromisoformat(self.deadline_at) - now).total_seconds()
        return min(max(0.0, left), self.length)


def load_unconfirmed(state_dir: Path) -> Unconfirmed | None:
    """What is kept; None when nothing is, or nothing readable."""
    try:
        return decode_unconfirmed(json.loads((state_dir / NAME).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def decode_unconfirmed(document: Any) -> Unconfirmed:
    """What ``save_unconfirmed`` wrote; an exception for anything else."""
    found = Unconfirmed(
        int(document["version"]),
        int(document["before"]),
        str(document["by"]),
        str(document["deadline_at"]),
        float(document["length"]),
    )
    if datetime.fromisoformat(found.deadline_at).tzinfo is None or not found.length >= 0:
        raise ValueError("no time zone, or a length below 0")
    return found


def save_unconfirmed(state_dir: Path, unconfirmed: Unconfirmed) -> None:
    """Keep it; OSError when it cannot be written."""
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    write_atomically(state_dir / NAME, json.dumps(asdict(unconfirmed)).encode(), mode=0o600)


def forget_unconfirmed(state_dir: Path) -> None:
    (state_dir / NAME).unlink(missing_ok=True)
