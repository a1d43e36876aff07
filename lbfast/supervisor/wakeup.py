"""Signals of the supervisor, turned into bytes on a descriptor that its loop reads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from types import FrameType


class SignalPipe:
    """While open, handled signals only enqueue: Python's C handler writes each number into a pipe."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._undo = ExitStack()
        previous = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._undo.callback(signal.set_wakeup_fd, previous)
        for number in numbers:
            self._undo.callback(signal.signal, number, signal.signal(number, _ignore))

    def fileno(self) -> int:
        return self._read

    def read(self) -> bytes:
        """The numbers of the signals that have come, in order."""
        try:
            return os.read(self._read, 256)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Give the handlers back and close."""
        self._undo.close()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors only: what a forked child does."""
        os.close(self._read)
        os.close(self._write)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The number is in the pipe already."""
