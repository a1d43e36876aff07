"""Proof that both ends of a pairing know the password, bound to the certificates that both see.

The password itself never leaves the box on which it is typed: the asked box says how it has hashed it
(``Challenge``), the asking one does the same.  ``PasswordStore`` is all that pairing needs of whoever keeps passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from lbfast.config.files import write_atomically

PASSWORD_NAME = "pair_password.json"  # noqa: S105 - a file
LEAST = 8
_COST, _BLOCK, _LANES = 1 << 14, 8, 1
# What an asked box may want of us: enough that a stolen proof is costly to guess from, never so much that we choke.
_BOUNDS: Final = {"time": (2, 20), "memory": (19_456, 262_144), "lanes": (1, 8), "length": (32, 64)}


@dataclass(frozen=True)
class Challenge:
    """How a password is hashed.  ``whose`` says to people which password is meant; the costs are argon2id's."""

    salt: bytes
    whose: str
    kind: str = "scrypt"
    time: int = 0
    memory: int = 0  # KiB
    lanes: int = 0
    length: int = 0

    def as_document(self) -> dict[str, Any]:
        return {**self.__dict__, "salt": self.salt.hex()}


def read_challenge(document: Any) -> Challenge:
    """ValueError for one that no honest box sends."""
    if not isinstance(document, Mapping):
        raise ValueError("the answer has no challenge")
    salt = bytes.fromhex(str(document.get("salt", "")))
    costs = {name: document.get(name) for name in _BOUNDS}
    found = Challenge(salt, str(document.get("whose", ""))[:80], str(document.get("kind", "")), **costs)  # type: ignore[arg-type]
    if not 8 <= len(salt) <= 64 or found.kind not in ("scrypt", "argon2id"):
        raise ValueError("it wants the password hashed in a way that lbfast does not use")
    if found.kind == "argon2id":
        for name, (least, most) in _BOUNDS.items():
            value = costs[name]
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"it wants the password hashed with {name} {value!r}, expected {least} to {most}")
    return found


class PasswordStore(Protocol):
    """Who knows what the password hashes to."""

    def challenge(self) -> Challenge | None:
        """How the right password was hashed; None when none is set."""

    def verifier(self) -> bytes:
        """``derive(password, challenge())`` of the right password."""


@dataclass(frozen=True)
class PasswordFile:
    """The password that `lbfast ha password` has set."""

    state_dir: Path

    def challenge(self) -> Challenge | None:
        found = self._read()
        return None if found is None else Challenge(bytes.fromhex(found["salt"]), "set by `lbfast ha password`")

    def verifier(self) -> bytes:
        found = self._read()
        return b"" if found is None else bytes.fromhex(found["verifier"])

    def set(self, password: str) -> None:
        """Replace it; ValueError when it is too short."""
        if len(password) < LEAST:
            raise ValueError(f"a password of {len(password)} characters, expected at least {LEAST}")
        challenge = Challenge(os.urandom(16), "")
        document = {"salt": challenge.salt.hex(), "verifier": derive(password, challenge).hex()}
        write_atomically(self.state_dir / PASSWORD_NAME, json.dumps(document).encode(), mode=0o600)

    def _read(self) -> dict[str, str] | None:
        try:
            found = json.loads((self.state_dir / PASSWORD_NAME).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class FirstOf:
    """The first of several stores that has a password at all."""

    stores: Sequence[PasswordStore]

    def challenge(self) -> Challenge | None:
        return next((found for it in self.stores if (found := it.challenge()) is not None), None)

    def verifier(self) -> bytes:
        return next((it.verifier() for it in self.stores if it.challenge() is not None), b"")


def derive(password: str, challenge: Challenge) -> bytes:
    """Slow on purpose."""
    if challenge.kind == "argon2id":
        from argon2.low_level import Type, hash_secret_raw

        return hash_secret_raw(
            password.encode(),
            challenge.salt,
            challenge.time,
            challenge.memory,
            challenge.lanes,
            challenge.length,
            Type.ID,
        )
    return hashlib.scrypt(password.encode(), salt=challenge.salt, n=_COST, r=_BLOCK, p=_LANES, maxmem=64 << 20)


def prove(verifier: bytes, side: str, nonce: str, asking: str, asked: str) -> str:
    """What only who knows the password can say about these two certificates, now."""
    return hmac.digest(verifier, f"{side}|{nonce}|{asking}|{asked}".encode(), "sha256").hex()


def is_proof(given: str, verifier: bytes, side: str, nonce: str, asking: str, asked: str) -> bool:
    return bool(verifier) and hmac.compare_digest(given.encode(), prove(verifier, side, nonce, asking, asked).encode())


FREE: Final = 5
LONGEST_S: Final = 60.0
FORGET_S: Final = 900.0


@dataclass
class Patience:
    """Slows down whoever guesses, from however many places at once; an operator is slowed by a minute at most."""

    failures: int = 0
    failed_at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until a password is looked at again; 0 = now."""
        if now - self.failed_at > FORGET_S:
            self.failures = 0
        if self.failures < FREE:
            return 0.0
        return max(0.0, self.failed_at + min(LONGEST_S, 2.0 ** min(self.failures - FREE + 1, 10)) - now)

    def failed(self, now: float) -> None:
        self.failures += 1
        self.failed_at = now
