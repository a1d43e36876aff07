"""Re-execution: the installed program takes this process over, with the descriptors it inherits by name."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Iterable

from lbfast.supervisor.estate import Estate

ESTATE = "LBFAST_ESTATE"
"""Environment: the number of the descriptor that says what else is inherited."""


def command() -> list[str]:
    """How this process was started: what is installed there now is the new program."""
    return [sys.executable, *sys.orig_argv[1:]]


def execute(estate: Estate, signals: Iterable[int]) -> OSError:
    """Become the installed program, or say why not; then nothing has changed.

    Signals wait until the new program has its handlers: their defaults would end this process.
    """
    memfd = estate.pack()
    fds = [memfd, *estate.fds.values()]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        for fd in fds:
            _set_cloexec(fd, on=False)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, command(), os.environ | {ESTATE: str(memfd)})  # noqa: S606 - no shell is wanted
    except OSError as error:
        for fd in fds:
            _set_cloexec(fd, on=True)
        os.close(memfd)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return error


def inherited(variable: str = ESTATE) -> Estate | None:
    """What the program before us left, if there was one; nobody after us inherits any of it by accident."""
    number = os.environ.pop(variable, "")
    if not number:
        return None
    estate = Estate.unpack(int(number))
    os.close(int(number))
    for fd in estate.fds.values():
        _set_cloexec(fd, on=True)
    return estate


def _set_cloexec(fd: int, *, on: bool) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC if on else 0)
