"""The folder belongs to whom the web process runs as, also what root writes into it from the console."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def keep_owner(folder: Path) -> None:
    """Give every file in the folder to the folder's owner; only root can, and only root has to."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    give_folder(folder, owner.st_uid, owner.st_gid)


def give_folder(folder: Path, uid: int, gid: int) -> None:
    """The folder and the plain files in it; links and files with a second name are left alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    top = os.open(folder, _DIRECTORY)
    try:
        os.fchown(top, uid, gid)
        for name in os.listdir(top):
            _give(name, top, uid, gid)
    finally:
        os.close(top)


def _give(name: str, folder: int, uid: int, gid: int) -> None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != uid:
            os.fchown(fd, uid, gid)
    finally:
        os.close(fd)
