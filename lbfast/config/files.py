"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int, *, outlives_power: bool = True) -> None:
    """Replace a file so that a crash at any moment leaves the old one or the new one; OSError when it cannot.

    Without ``outlives_power`` nothing waits for the disk: a killed program still leaves it whole, a power cut may not.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(content)
            stream.flush()
            if outlives_power:
                os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if outlives_power:
        _sync_directory(path.parent)


def open_to_read(path: Path) -> list[int]:
    """Its descriptor, for somebody with fewer rights; none when it cannot be opened, and whoever misses it says why."""
    try:
        return [os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)]
    except OSError:
        return []


def _sync_directory(directory: Path) -> None:
    """Without this the new name may be lost with the power although the content is on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
