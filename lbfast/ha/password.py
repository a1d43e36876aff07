"""Proof that both ends of a pairing know the password, bound to the certificates that both see.

The password itself never leaves the box on which it is typed.  ``PasswordStore`` is
all that pairing needs of whoever keeps passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lbfast.config.files import write_atomically

PASSWORD_NAME = "pair_password.json"  # noqa: S105 - a file
LEAST = 8
_COST, _BLOCK, _LANES = 1 << 14, 8, 1


class PasswordStore(Protocol):
    """Who knows what the pairing password hashes to."""

    def salt(self) -> bytes | None:
        """Of the stored hash; None when no password is set."""

    def verifier(self) -> bytes:
        """``derive(password, salt)`` of the right password."""


@dataclass(frozen=True)
class PasswordFile:
    """The password that `lbfast ha password` has set."""

    state_dir: Path

    def salt(self) -> bytes | None:
        found = self._read()
        return None if found is None else bytes.fromhex(found["salt"])

    def verifier(self) -> bytes:
        found = self._read()
        return b"" if found is None else bytes.fromhex(found["verifier"])

    def set(self, password: str) -> None:
        """Replace it; ValueError when it is too short."""
        if len(password) < LEAST:
            raise ValueError(f"a password of {len(password)} characters, expected at least {LEAST}")
        salt = os.urandom(16)
        document = {"salt": salt.hex(), "verifier": derive(password, salt).hex()}
        write_atomically(self.state_dir / PASSWORD_NAME, json.dumps(document).encode(), mode=0o600)

    def _read(self) -> dict[str, str] | None:
        try:
            found = json.loads((self.state_dir / PASSWORD_NAME).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def derive(password: str, salt: bytes) -> bytes:
    """Slow on purpose."""
    return hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_LANES, maxmem=64 << 20)


def prove(verifier: bytes, side: str, nonce: str, asking: str, asked: str) -> str:
    """What only who knows the password can say about these two certificates, now."""
    return hmac.digest(verifier, f"{side}|{nonce}|{asking}|{asked}".encode(), "sha256").hex()


def is_proof(given: str, verifier: bytes, side: str, nonce: str, asking: str, asked: str) -> bool:
    return bool(verifier) and hmac.compare_digest(given, prove(verifier, side, nonce, asking, asked))
