"""The candidate on disk: its text, what it was made from, and who changed what; one file, replaced whole."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from lbfast.config.files import write_atomically

NAME: Final = "candidate.json"
MOST_CHANGES: Final = 500


@dataclass(frozen=True)
class Change:
    """One edit."""

    at: str
    by: str
    text: str


@dataclass(frozen=True)
class Draft:
    """A candidate; ``base`` is the version it was made from.  Without changes it is the running configuration."""

    text: str
    base: int
    changes: tuple[Change, ...] = ()

    @property
    def tag(self) -> str:
        """Names this state of the candidate: whoever edits says which one they have seen."""
        return hashlib.sha256(f"{self.base}\n{len(self.changes)}\n{self.text}".encode()).hexdigest()[:24]

    def edited(self, text: str, changes: list[Change]) -> Draft:
        return replace(self, text=text, changes=(*self.changes, *changes)[-MOST_CHANGES:])


def load_draft(state_dir: Path) -> tuple[Draft | None, str]:
    """What is kept; and what was wrong with the file, which is then moved aside."""
    path = state_dir / NAME
    try:
        return decode_draft(json.loads(path.read_bytes())), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        aside = path.with_name(f"{NAME}.damaged")
        try:
            path.replace(aside)
        except OSError:
            return None, f"{path} cannot be read ({error}): the uncommitted changes are lost"
        return None, f"{path} is damaged ({error}), it was moved to {aside.name}: the uncommitted changes are lost"


def save_draft(state_dir: Path, draft: Draft) -> None:
    """Keep it; OSError when it cannot be written, and then the old one stands."""
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    write_atomically(state_dir / NAME, json.dumps(asdict(draft)).encode(), mode=0o640)


def forget_draft(state_dir: Path) -> None:
    (state_dir / NAME).unlink(missing_ok=True)


def put_draft_aside(state_dir: Path) -> Path:
    """It gives way to the peer's, and can still be looked at; the one that gave way before is dropped."""
    path = state_dir / NAME
    aside = path.with_name("candidate-aside.json")
    with suppress(FileNotFoundError):
        path.replace(aside)
    return aside


def decode_draft(document: Any) -> Draft:
    """What is on disk, or what the peer has sent; an exception for what is none.  A later release may say more."""
    changes = tuple(Change(str(it["at"]), str(it["by"]), str(it["text"])) for it in document["changes"])
    if not isinstance(document["text"], str):
        raise ValueError("text is not text")
    return Draft(document["text"], int(document["base"]), changes)
