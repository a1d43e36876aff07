"""The file of the control socket: made atomically, replaced only when nobody answers on it.

The socket is bound under a temporary name, gets its mode, listens, and is then
renamed: whoever finds the name can connect, and nobody ever sees it with the wrong mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from lbfast.control import protocol

MODE: Final = 0o660
BACKLOG: Final = 128
ASK_S: Final = 2.0


class SocketFile:
    """A listening unix socket and its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: tuple[int, int] | None = None

    def open(self) -> socket.socket:
        """The listening, non-blocking socket.  ValueError when the name is too long or taken by a living one."""
        path = protocol.check_path(self.path)
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)  # two that start at once look and rename one after the other
            if is_answered(path):
                raise ValueError(
                    f"{path}: another lbfast answers there; stop it, or set LBFAST_RUNTIME_DIR to another directory"
                )
            return self._make(path)
        finally:
            os.close(directory)

    def _make(self, path: str) -> socket.socket:
        temporary = os.path.join(os.path.dirname(path), f".c{os.getpid()}"[:12])
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.bind(temporary)
            os.chmod(temporary, MODE)
            sock.listen(BACKLOG)
            os.replace(temporary, path)
        except BaseException:
            sock.close()
            with suppress(OSError):
                os.unlink(temporary)
            raise
        found = os.stat(path)
        self._inode = (found.st_dev, found.st_ino)
        return sock

    def remove(self) -> None:
        """Remove the name if it is still ours: a successor may have taken it."""
        if self._inode is None:
            return
        with suppress(OSError):
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.path)
        self._inode = None


def is_answered(path: str) -> bool:
    """Whether a living process listens on a socket of that name; something else than a socket is an OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if (mode & 0o170000) != 0o140000:
        raise FileExistsError(errno.EEXIST, "something that is not a socket is in the way", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ASK_S)
        try:
            sock.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # a full queue: somebody holds it
        return True
