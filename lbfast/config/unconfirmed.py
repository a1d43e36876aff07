"""The record of a commit that reverts by itself unless it is confirmed: on disk, so that nothing forgets it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

NAME: Final = "confirm.json"
CONFIRMED_NAME: Final = "confirmed.json"  # the version that was confirmed last: the peer may not know yet


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

    def as_told(self, now: datetime) -> dict[str, Any]:
        """For the peer, whose clock may be another: what is left, in seconds, instead of the deadline."""
        told = {key: value for key, value in asdict(self).items() if key != "deadline_at"}
        return told | {"left": self.remaining(now)}


def load_confirmed(state_dir: Path) -> tuple[int, str]:
    """The version that was confirmed last, and by whom; 0 when that is not known."""
    try:
        found = json.loads((state_dir / CONFIRMED_NAME).read_bytes())
        return int(found["version"]), str(found["by"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0, ""


def load_unconfirmed(state_dir: Path) -> Unconfirmed | None:
    """What is kept; None when nothing is, or nothing readable."""
    try:
        return decode_unconfirmed(json.loads((state_dir / NAME).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def decode_unconfirmed(document: Any) -> Unconfirmed:
    """As it is kept; an exception for anything else."""
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


def hear_unconfirmed(told: Any, now: datetime) -> Unconfirmed:
    """What the peer's ``as_told`` says, by the clock of this box; an exception for anything else."""
    deadline = now + timedelta(seconds=float(told["left"]))
    return decode_unconfirmed({**told, "deadline_at": deadline.isoformat()})
