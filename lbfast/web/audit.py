"""Who did what: one JSON line for each act, chained by hashes, so that a line changed or taken out is noticed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbfast.web.store import Clock, now

NAME: Final = "audit.jsonl"
_START: Final = "0" * 64
_TAIL: Final = 1 << 20  # an act's line is far shorter
_LONGEST: Final = 20_000  # of the detail: a difference can be long


@dataclass(frozen=True)
class Verdict:
    """``fault``: what is wrong with the chain, None when it is whole."""

    count: int
    fault: str | None


class Audit:
    """The file; the web process and the console append to it, one at a time."""

    def __init__(self, folder: Path, clock: Clock = now) -> None:
        self.path = folder / NAME
        self._clock = clock

    def add(self, who: str, what: str, detail: str = "", source: str = "") -> None:
        """Append an act; OSError when the disk does not take it."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            record = {
                "at": self._clock().isoformat(timespec="milliseconds"),
                "who": who,
                "from": source,
                "what": what,
                "detail": detail[:_LONGEST],
                "prev": _last_hash(fd),
            }
            record["hash"] = _hash(record)
            os.write(fd, json.dumps(record, ensure_ascii=True).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def newest(self, limit: int, word: str = "") -> list[dict[str, Any]]:
        """The last acts, newest first; with ``word`` those that have it."""
        wanted = word.casefold()
        found: list[dict[str, Any]] = []
        for line in reversed(list(self._lines())):
            if wanted and wanted not in line.casefold():
                continue
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # ``verify`` tells of it
            if len(found) >= limit:
                break
        return found

    def verify(self) -> Verdict:
        """Walk the chain."""
        before, count = _START, 0
        for count, line in enumerate(self._lines(), 1):
            try:
                record = json.loads(line)
                kept = record.pop("hash")
            except (ValueError, KeyError, AttributeError):
                return Verdict(count, f"line {count} is no record of this log")
            if record.get("prev") != before:
                return Verdict(count, f"before line {count} something was taken out or put in")
            if _hash(record) != kept:
                return Verdict(count, f"line {count} was changed")
            before = kept
        return Verdict(count, None)

    def _lines(self) -> Iterator[str]:
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                yield from file
        except FileNotFoundError:
            return


def _hash(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _last_hash(fd: int) -> str:
    size = os.fstat(fd).st_size
    tail = os.pread(fd, min(size, _TAIL), max(0, size - _TAIL)).rstrip(b"\n").rpartition(b"\n")[2]
    if not tail:
        return _START
    try:
        return str(json.loads(tail)["hash"])
    except (ValueError, KeyError, TypeError):
        return hashlib.sha256(tail).hexdigest()  # the chain is broken here, and ``verify`` says so
