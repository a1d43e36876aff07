"""Waiting for conditions with deadlines, and looking at processes through /proc."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lbfast.control.client import ControlUnavailable

T = TypeVar("T")

TIMEOUT_SCALE = float(os.environ.get("LBFAST_TEST_TIMEOUT_SCALE", "1"))
"""Multiplies every timeout of the tests: one number for slow machines."""


def scaled(seconds: float) -> float:
    """A timeout as this machine needs it."""
    return seconds * TIMEOUT_SCALE


def wait_for(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Wait until a condition is true and return its value; AssertionError with ``what`` when it never is.

    A condition that asks lbfast while nobody answers, as between two control processes, is not yet true.
    """
    deadline = time.monotonic() + scaled(timeout)
    pause = 0.001
    while True:
        unanswered: ControlUnavailable | None = None
        try:
            if value := condition():
                return value
        except ControlUnavailable as error:
            unanswered = error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {scaled(timeout):g} s in vain for {what}") from unanswered
        time.sleep(pause)  # between two looks, never instead of one
        pause = min(pause * 1.5, 0.05)


def fd_census(pid: int) -> dict[int, str]:
    """Every open descriptor of a process and what it is."""
    census = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            census[int(entry.name)] = os.readlink(entry.path)
        except FileNotFoundError:
            continue  # closed while we looked
    return census


def children_of(pid: int) -> dict[str, int]:
    """Living children of a process: name -> pid."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if is_running(int(child)):
                found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
        except OSError:
            continue
    return found


def freeze(pid: int) -> None:
    """Stop a process and wait until it has stopped: kill returns earlier.  SIGCONT lets it go on."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _stat(pid)[:1] in (["T"], ["t"]), what=f"process {pid} to stop")


def is_running(pid: int) -> bool:
    """Whether a process lives and is no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def processes_of_session(session: int) -> list[int]:
    """Living processes of a session: whatever a program that was its leader has left."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and fields[0] not in "ZX" and int(fields[3]) == session:
                found.append(int(entry.name))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
