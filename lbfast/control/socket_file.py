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

BACKLOG: Final = 128
ASK_S: Final = 2.0


class SocketFile:
    """A listening unix socket and its name."""

    def __init__(self, path: Path, mode: int = 0o660, gid: int = -1, uid: int = -1) -> None:
        """``uid``, ``gid``: owner and group of the file, -1 = those of this process."""
        self.path = path
        self._mode = mode
        self._gid = gid
        self._uid = uid
        self._sock: socket.socket | None = None
        self._inode: tuple[int, int] | None = None

    def open(self, *, take_over: bool = False) -> socket.socket:
        """The listening, non-blocking socket, made at the first call.

        ValueError when the name is too long or taken by a living one.
        ``take_over``: take the name from whoever has it; who is connected there stays so.
        """
        if self._sock is not None:
            return self._sock
        path = protocol.check_path(self.path)
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)  # two that start at once look and rename one after the other
            if not take_over and is_answered(path):
                raise ValueError(
                    f"{path}: another lbfast answers there; stop it, or set LBFAST_RUNTIME_DIR to another directory"
                )
            self._sock = self._make(path)
            return self._sock
        finally:
            os.close(directory)

    def _make(self, path: str) -> socket.socket:
        temporary = os.path.join(os.path.dirname(path), f".c{os.getpid()}"[:12])
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.bind(temporary)
            self._set_rights(temporary)
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

    def _set_rights(self, path: str) -> None:
        if self._gid >= 0 or self._uid >= 0:
            with suppress(PermissionError):  # an ordinary user can only give it to a group that it is in
                os.chown(path, self._uid, self._gid)
        os.chmod(path, self._mode)

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
