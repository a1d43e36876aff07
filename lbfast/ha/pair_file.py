"""What this box keeps of its pair: who the peer is, the keys, the lives; whole files, replaced or left alone."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lbfast.config.files import keep_note, write_atomically

PAIR_NAME = "pair.json"
LIVES_NAME = "pair_lives.json"
MAINTENANCE_NAME = "maintenance.json"


class PairFileError(Exception):
    """The file is there and cannot be used; a box that may have a peer must not act as if it had none."""


@dataclass(frozen=True)
class Pair:
    """One pairing, from this box's side."""

    id: str
    role: str  # "primary" or "secondary"
    local: str
    peer: str
    key: str  # hex, of the heartbeats
    peer_fingerprint: str  # SHA-256 of its certificate, hex
    paths: tuple[tuple[str, str], ...] = ()  # further ones: (local, peer)
    peer_name: str = ""
    confirmed: str = "yes"  # "no" until both sides are known to have kept it

    @property
    def is_primary(self) -> bool:
        return self.role == "primary"

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed == "yes"

    @property
    def all_paths(self) -> tuple[tuple[str, str], ...]:
        return ((self.local, self.peer), *self.paths)


def load_pair(state_dir: Path) -> Pair | None:
    """None without a pair; PairFileError when there is a file that cannot be read."""
    path = state_dir / PAIR_NAME
    try:
        document = json.loads(path.read_bytes())
        paths = tuple((str(local), str(peer)) for local, peer in document.pop("paths", ()))
        pair = Pair(**{key: str(value) for key, value in document.items()}, paths=paths)
        if pair.role not in ("primary", "secondary") or len(bytes.fromhex(pair.key)) != 32:
            raise ValueError("role or key")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise PairFileError(f"{path} cannot be read: {error}; restore it, or remove it to end the pair") from None
    return pair


def save_pair(state_dir: Path, pair: Pair) -> None:
    document = json.dumps(asdict(pair), indent=1)
    write_atomically(state_dir / PAIR_NAME, document.encode(), mode=0o600)


def remove_pair(state_dir: Path) -> None:
    (state_dir / PAIR_NAME).unlink(missing_ok=True)


@dataclass(frozen=True)
class Lives:
    """The number of this run, and the highest of the peer's: both only grow."""

    own: int = 0
    peer: int = 0


def begin_life(state_dir: Path, *, is_primary: bool) -> Lives:
    """Count this run, and keep that before anything is sent.

    At least the milliseconds of the wall clock: a box whose state was lost or restored must not fall
    behind what its peer remembers of it.  Odd for the primary, even for the secondary: never the peer's.
    """
    before = _read_lives(state_dir)
    now = time.clock_gettime_ns(time.CLOCK_REALTIME) // 1_000_000
    lives = replace(before, own=max(before.own + 1, now) // 2 * 2 + 2 + is_primary)
    keep_lives(state_dir, lives)
    return lives


def keep_lives(state_dir: Path, lives: Lives) -> None:
    write_atomically(state_dir / LIVES_NAME, json.dumps(asdict(lives)).encode(), mode=0o600)


def _read_lives(state_dir: Path) -> Lives:
    try:
        document: dict[str, Any] = json.loads((state_dir / LIVES_NAME).read_bytes())
        return Lives(int(document["own"]), int(document["peer"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Lives()


@dataclass(frozen=True)
class Maintenance:
    """Somebody works on this box: it takes no addresses, whatever happens."""

    by: str
    at: str
    reason: str


def load_maintenance(state_dir: Path) -> Maintenance | None:
    try:
        document = json.loads((state_dir / MAINTENANCE_NAME).read_bytes())
        return Maintenance(str(document["by"]), str(document["at"]), str(document["reason"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Maintenance("?", "?", f"{MAINTENANCE_NAME} cannot be read")  # the careful reading of a broken file


def save_maintenance(state_dir: Path, maintenance: Maintenance | None) -> None:
    keep_note(state_dir / MAINTENANCE_NAME, None if maintenance is None else asdict(maintenance), 0o640)
