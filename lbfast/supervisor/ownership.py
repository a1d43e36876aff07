"""Gives control's files to the user that control becomes: its state, and the file that it logs to.

The state directory stays root's, is open to the user's group, and sticky: control replaces its own files there, and
neither control nor whoever has taken it over can replace the supervisor's.  Links are never followed.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from lbfast.supervisor.privileges import User

STATE_MODE: Final = 0o1770
STATE_NAMES: Final = (
    "state.json",
    "ids.json",
    "confirm.json",
    "confirmed.json",
    "taken_file.json",
    "own_settings.json",
)
VERSIONS: Final = "versions"
LOG_MODE: Final = 0o640
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give_state(directory: Path, user: User) -> None:
    """Called by root, before control becomes the user; OSError when the kernel refuses."""
    top = os.open(directory, _DIRECTORY)
    try:
        status = os.fstat(top)
        os.fchown(top, -1, user.gid)
        os.fchmod(top, stat.S_IMODE(status.st_mode) & 0o707 | STATE_MODE)
        for name in STATE_NAMES:
            _give(name, top, user)
        with suppress(FileExistsError):
            os.mkdir(VERSIONS, 0o700, dir_fd=top)
        versions = os.open(VERSIONS, _DIRECTORY, dir_fd=top)
        try:
            os.fchown(versions, user.uid, user.gid)
            for name in os.listdir(versions):
                _give(name, versions, user)
        finally:
            os.close(versions)
    finally:
        os.close(top)


def give_log(path: Path, user: User) -> None:
    """Make the log file unless it is there, and let the user append to it; whatever is no regular file stays as it is.

    A file that cannot be had is no reason not to start: control says so when it opens it.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, LOG_MODE)
    except OSError:
        return
    try:
        _give_open(fd, user)
    finally:
        os.close(fd)


def _give(name: str, directory: int, user: User) -> None:
    """A regular file with one name; nothing else is ever given away."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError:
        return  # not there, or a link
    try:
        _give_open(fd, user)
    finally:
        os.close(fd)


def _give_open(fd: int, user: User) -> None:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != user.uid:
        os.fchown(fd, user.uid, user.gid)
