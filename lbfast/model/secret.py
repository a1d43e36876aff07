"""A value that is never shown: not in a log, an error, a traceback, a process list or a configuration.

Secrets (keys of the REST API, password hashes, the pair's keys) are made by lbfast or typed in by an operator, live in
files of their own (``config/secret_file.py``), and are handed on as a Secret until the one call that needs the bytes.
"""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

HIDDEN: Final = "<secret>"


class Secret:
    """Some bytes.  Whatever would write it out by accident writes ``<secret>`` or is refused."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves, for the call that needs them; not to be kept."""
        return self._value

    def __eq__(self, other: object) -> bool:
        """In a time that says nothing about where they differ."""
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a set of secrets would compare by timing

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, _: str) -> str:
        return HIDDEN

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written out: hand on the file that holds it")
