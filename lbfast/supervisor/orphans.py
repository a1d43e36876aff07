"""Children that a killed supervisor left behind: remembered by pid and start time, ended by the next supervisor.

They go on serving while nobody supervises them, but they hold the ports: the next
supervisor has to end them before it can listen.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TERM_WITHIN = 4.0  # workers drain for a second, then cut
_KILL_WITHIN = 2.0


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid."""

    name: str
    pid: int
    started: int  # clock ticks after boot


def remember(path: Path, children: Iterable[tuple[str, int]]) -> None:
    """Write (name, pid) of every child that runs now."""
    entries = [[name, pid, started] for name, pid in children if (started := _started(pid)) is not None]
    new = path.with_suffix(".new")
    new.write_text(json.dumps(entries))
    os.replace(new, path)


def decode_record(document: Any) -> list[Process]:
    """What ``remember`` wrote; an exception for anything else."""
    return [Process(str(name), int(pid), int(started)) for name, pid, started in document]


def find_orphans(path: Path) -> list[Process]:
    """Those of the record that are still alive; to be called with the lock held."""
    try:
        entries = decode_record(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return []
    return [process for process in entries if _started(process.pid) == process.started]


def end_orphans(orphans: Iterable[Process]) -> None:
    """Ask all to stop, kill those that do not; returns when they are gone."""
    watched: dict[int, Process] = {}
    try:
        for orphan in orphans:
            try:
                watched[os.pidfd_open(orphan.pid)] = orphan
            except ProcessLookupError:
                continue
        left = set(watched)
        for number, seconds in ((signal.SIGTERM, _TERM_WITHIN), (signal.SIGKILL, _KILL_WITHIN)):
            for fd in left:
                _signal(fd, number)
            left = _wait_gone(left, time.monotonic() + seconds)
    finally:
        for fd in watched:
            os.close(fd)


def _signal(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _wait_gone(pidfds: set[int], deadline: float) -> set[int]:
    """Wait for processes to end; those that have not."""
    left = set(pidfds)
    poller = select.poll()
    for fd in left:
        poller.register(fd, select.POLLIN)
    while left and (seconds := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(seconds * 1000):
            poller.unregister(fd)
            left.discard(fd)
    return left


def _started(pid: int) -> int | None:
    """Start time of a running process; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
