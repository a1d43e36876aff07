"""The lock that lets one supervisor at a time use a directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another supervisor holds the lock; ``pid`` is 0 when it did not say who it is."""

    def __init__(self, path: Path, pid: int, variable: str) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path.parent}: lbfast is already running here as {who} (it holds {path.name}); "
            f"stop it first, or set {variable} to another directory to run a second one"
        )
        self.pid = pid


class Lock:
    """An ``flock`` on a file that names its holder.

    A forked child shares the lock with its parent: it must call ``forget``, or
    the lock outlives the supervisor.
    """

    def __init__(self, path: Path, variable: str, fd: int = -1) -> None:
        """``variable``: the environment variable that chooses the directory, for the error's text.

        ``fd``: the lock is held already, by this descriptor.
        """
        self.path = path
        self.variable = variable
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor that holds the lock; -1 without it."""
        return self._fd

    def acquire(self) -> None:
        """Take the lock and write our pid; AlreadyRunning when somebody has it."""
        while self._fd < 0:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us removes the file while it still has the lock, so what we locked may
                # be a file that no longer has a name; then there is a new one to try.
                if self._is_named(fd):
                    os.truncate(fd, 0)
                    os.write(fd, b"%d\n" % os.getpid())
                    self._fd = fd
            except BlockingIOError:
                raise AlreadyRunning(self.path, _read_pid(fd), self.variable) from None
            finally:
                if self._fd != fd:
                    os.close(fd)

    def release(self) -> None:
        """Remove the file and give the lock back; harmless without it."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """Close the descriptor only: what a forked child does."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_named(self, fd: int) -> bool:
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        ours = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)


def _read_pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0
