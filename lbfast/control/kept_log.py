"""A copy of the log that can be searched: JSON lines in the state directory, in segments, the oldest dropped.

Written by the log writer's thread beside the configured target; read by anybody's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from lbfast.control.log import LogTarget
from lbfast.control.protocol import ControlError
from lbfast.control.records import Record

FOLDER: Final = "log"
SEGMENT_BYTES: Final = 8 << 20
SEGMENTS: Final = 12
MOST_LINES_READ: Final = 400_000
_SUFFIX: Final = ".jsonl"
_BLOCK: Final = 1 << 16

KINDS: Final = {
    "connections": frozenset({"open", "close", "refuse", "connect_fail"}),
    "health": frozenset({"health"}),
    "audit": frozenset({"admin"}),
    "system": frozenset({"process"}),
}


@dataclass(frozen=True)
class LogFilter:
    """Which records somebody wants; None is no condition."""

    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    client: str | None = None  # address or network
    service: str | None = None
    real: str | None = None
    reason: str | None = None  # of the choice, or how the connection ended
    text: str | None = None

    def matches(self, record: Record, line: bytes) -> bool:
        at = _moment(record)
        return (
            (self.kind is None or record.get("event") in KINDS[self.kind])
            and (self.since is None or (at is not None and at >= self.since))
            and (self.until is None or (at is not None and at <= self.until))
            and (self.service is None or record.get("service") == self.service)
            and (self.real is None or self.real in (record.get("real"), record.get("previous")))
            and (self.reason is None or self.reason in (record.get("reason"), record.get("ended")))
            and (self.client is None or _is_of(record.get("client"), self.client))
            and (self.text is None or self.text.casefold().encode() in line.lower())
        )


class KeptLog:
    """The folder of segments."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / FOLDER
        self._fd = -1
        self._size = 0

    def append(self, lines: list[bytes]) -> None:
        """Write lines; OSError when they cannot be written."""
        if self._fd < 0 or self._size >= SEGMENT_BYTES:
            self._next_segment()
        data = b"".join(line + b"\n" for line in lines)
        while data:
            done = os.write(self._fd, data)
            self._size += done
            data = data[done:]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next_segment(self) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        names = self.segments()
        number = int(names[-1].stem) if names else 0
        if not names or names[-1].stat().st_size >= SEGMENT_BYTES:
            number += 1
        self.close()
        path = self.folder / f"{number:09}{_SUFFIX}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self._size = os.fstat(self._fd).st_size
        for old in self.segments()[:-SEGMENTS]:
            old.unlink(missing_ok=True)

    def segments(self) -> list[Path]:
        """Ascending."""
        with suppress(OSError):
            return sorted(path for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())
        return []

    def find(self, wanted: LogFilter, limit: int) -> dict[str, Any]:
        """The newest records that match, newest first; ``is_cut`` when older ones were not looked at."""
        found: list[Record] = []
        read = 0
        for line in self._newest_first():
            read += 1
            if read > MOST_LINES_READ or len(found) >= limit:
                return {"records": found, "is_cut": True}
            try:
                record = json.loads(line)
            except ValueError:
                continue  # half a line, of a kill or a full disk
            if not isinstance(record, dict):
                continue
            at = _moment(record)
            if wanted.since is not None and at is not None and at < wanted.since:
                break  # clocks may jump a little, not by a segment
            if wanted.matches(record, line):
                found.append(record)
        return {"records": found, "is_cut": False}

    def _newest_first(self) -> Iterator[bytes]:
        for path in reversed(self.segments()):
            with suppress(OSError), path.open("rb") as stream:
                yield from _backwards(stream)


class Tee:
    """The configured target, and the kept log beside it.  What happens to one is nothing to the other."""

    def __init__(self, target: LogTarget, kept: KeptLog) -> None:
        self._target = target
        self._kept = kept
        self.name = target.name

    def write(self, records: list[tuple[Record, bytes]]) -> int:
        written = self._target.write(records)
        with suppress(OSError):  # a full state directory is said by whoever must keep something there
            self._kept.append([line for _, line in records[:written]])
        return written

    def reopen(self) -> None:
        self._target.reopen()

    def close(self) -> None:
        self._target.close()
        self._kept.close()


def make_filter(args: dict[str, Any]) -> LogFilter:
    """From a verb's arguments; ControlError for what is none."""
    kind = args.get("kind")
    if kind is not None and kind not in KINDS:
        raise ControlError("bad_argument", f"kind: expected one of {', '.join(KINDS)}, found {kind[:40]!r}")
    since, until = (None if args.get(key) is None else _time(key, args[key]) for key in ("since", "until"))
    client = args.get("client")
    if client is not None:
        try:
            ip_network(client, strict=False)
        except ValueError:
            raise ControlError("bad_argument", f"client: expected an address or network, found {client!r}") from None
    service, real, reason, text = (args.get(key) for key in ("service", "real", "reason", "text"))
    return LogFilter(kind, since, until, client, service, real, reason, text)


def _time(key: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ControlError("bad_argument", f"{key}: expected a time such as 2026-11-24T14:00, found {text!r}") from None
    return moment if moment.tzinfo is not None else moment.astimezone()


def _moment(record: Record) -> datetime | None:
    try:
        moment = datetime.fromisoformat(record["at"])
    except (KeyError, ValueError, TypeError):
        return None
    return moment if moment.tzinfo is not None else None


def _is_of(client: Any, wanted: str) -> bool:
    try:
        return ip_address(client) in ip_network(wanted, strict=False)
    except (ValueError, TypeError):
        return False


def _backwards(stream: Any) -> Iterator[bytes]:
    """The lines of a file, the last one first."""
    stream.seek(0, os.SEEK_END)
    position, rest = stream.tell(), b""
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        stream.seek(position)
        rows = (stream.read(size) + rest).split(b"\n")
        rest = rows[0]
        yield from (row for row in reversed(rows[1:]) if row)
    if rest:
        yield rest
