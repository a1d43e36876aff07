"""A pair that has ended: the box that was not active keeps a note of who has the service addresses since."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lbfast.config.files import keep_note

_NAME = "former_pair.json"


@dataclass(frozen=True)
class Former:
    """As long as there is one, this box runs without raising the service addresses."""

    peer: str  # its address
    since: str

    @property
    def words(self) -> str:
        """What is so, and what to do."""
        return (
            f"the service addresses stay with the former peer {self.peer} since {self.since}; "
            "`lbfast ha takeover` raises them here"
        )

    @property
    def report(self) -> dict[str, str]:
        """As plain data."""
        return {**asdict(self), "words": self.words}


def make_former(peer: str) -> Former:
    """From now on."""
    return Former(peer, datetime.now(UTC).astimezone().isoformat(timespec="seconds"))


def load_former(state_dir: Path) -> Former | None:
    """None on a box that has its own addresses, or is one of a pair."""
    try:
        document = json.loads((state_dir / _NAME).read_bytes())
        return Former(str(document["peer"]), str(document["since"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Former("?", "?")  # the careful reading of a broken file


def save_former(state_dir: Path, former: Former | None) -> None:
    """None: whatever was noted counts no more."""
    keep_note(state_dir / _NAME, None if former is None else asdict(former), 0o644)
