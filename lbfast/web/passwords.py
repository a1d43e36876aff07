"""Passwords: argon2id, and what is too weak to be one."""

from __future__ import annotations

from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from lbfast.web.said import said

LEAST: Final = 10
MOST: Final = 256  # hashing more costs time and proves nothing
_COMMON: Final = frozenset(
    {"loadbalancer", "password12", "password123", "passwordpassword", "1234567890", "12345678910", "qwertyuiop"}
    | {"administrator", "letmein123", "changeme123", "symphony123", "welcome123", "iloveyou123", "adminadmin"}
)
# RFC 9106, second recommendation: 64 MiB, 3 passes.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=2)
# Matches nothing that anybody knows: an unknown user costs as much time as a known one.
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=2$/1NV4hwg5VBP7G2vZObsPw$F49iRi0SyvHVFYV5gRuEalD1deLfgyVooAEHUccZ9qk"


def hash_password(password: str) -> str:
    """Takes about 0.2 s and 64 MiB."""
    return _HASHER.hash(password)


def is_password(hashed: str | None, password: str) -> bool:
    """Whether it is the one; as slow for a user who has none."""
    try:
        return _HASHER.verify(hashed or _NOBODY, password[: MOST + 1]) and hashed is not None
    except (Argon2Error, InvalidHashError):
        return False


def needs_rehash(hashed: str) -> bool:
    return _HASHER.check_needs_rehash(hashed)


def why_weak(password: str, user: str) -> str | None:
    """Why a new password is refused, in words; None when it is good enough."""
    if len(password) < LEAST:
        return said(
            "A password has at least %(least)s characters; this one has %(found)s.", least=LEAST, found=len(password)
        )
    if len(password) > MOST:
        return said("A password has at most %(most)s characters.", most=MOST)
    lowered = password.lower()
    if lowered in _COMMON or len(set(lowered)) < 4:
        return said(
            "This password is among the first that anybody would try. Three or four unrelated words are better."
        )
    if user and user.lower() in lowered and len(password) < len(user) + LEAST:
        return said("The password contains the name of the user.")
    return None
