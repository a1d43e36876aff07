"""Secrets on disk: a file each, for its owner alone, made once from the kernel's random numbers."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from lbfast.config.files import write_atomically
from lbfast.model.secret import Secret

MODE: Final = 0o600
MOST_BYTES: Final = 65_536
BITS_FOR_OTHERS: Final = 0o077


class SecretFault(Exception):
    """A file that cannot hold a secret; the text names it and says what would be right, never what is in it."""


def read_secret(path: Path) -> Secret:
    """Its bytes without the line end; SecretFault when others could have read them, or there are none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFault(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SecretFault(f"{path}: found something that is not a regular file, expected a file with a secret")
        if status.st_mode & BITS_FOR_OTHERS:
            found = stat.filemode(status.st_mode)
            raise SecretFault(f"{path}: found mode {found}, expected a file for its owner alone: chmod 600")
        value = os.read(fd, MOST_BYTES + 1).removesuffix(b"\n")
    finally:
        os.close(fd)
    if not 0 < len(value) <= MOST_BYTES:
        raise SecretFault(f"{path}: found {len(value)} bytes, expected a secret of 1 to {MOST_BYTES}")
    return Secret(value)


def make_secret(path: Path, size: int = 32) -> Secret:
    """A new one of ``size`` random bytes, written as hexadecimal digits; OSError when it cannot be kept."""
    value = secrets.token_hex(size).encode()
    write_atomically(path, value + b"\n", mode=MODE)
    return Secret(value)
