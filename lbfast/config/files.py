"""Files that are replaced whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


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


def keep_note(path: Path, document: Mapping[str, Any] | None, mode: int) -> None:
    """One JSON document, or no file at all when there is nothing to note."""
    if document is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, json.dumps(document).encode(), mode=mode)


def read_regular(path: Path, most: int) -> bytes:
    """At most so much of a regular file, never of what a link names: root reads what control may write."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        return stream.read(most)


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
