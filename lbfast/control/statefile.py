"""The state file: read with suspicion, written atomically.

A write is a temporary file in the same directory, fsync, rename, fsync of the
directory: after a power cut there is the old content or the new, never a mixture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from lbfast.control.marks import Marks, marks_from_json, marks_to_json

NAME = "state.json"
_LOST = "drains, halts, weights and pins of before are forgotten"


def load_marks(path: Path, now: datetime) -> tuple[Marks, str | None]:
    """The kept marks, and a message when they could not be used.

    A file that does not read as a state file is moved aside, so that its content
    can be looked at and the next write does not destroy it; the start goes on.
    """
    try:
        return marks_from_json(json.loads(path.read_bytes())), None
    except FileNotFoundError:
        return Marks(), None
    except OSError as error:
        return Marks(), f"{path} cannot be read ({error.strerror}): {_LOST}"
    except (ValueError, RecursionError) as error:
        return Marks(), _move_aside(path, now, str(error) or type(error).__name__)


def _move_aside(path: Path, now: datetime, why: str) -> str:
    aside = path.with_name(f"{path.name}.corrupt-{now:%Y%m%d-%H%M%S}")
    try:
        os.replace(path, aside)
    except OSError as error:
        return f"{path} is damaged ({why}) and could not be moved aside ({error.strerror}): {_LOST}"
    return f"{path} is damaged ({why}), it was moved to {aside.name}: {_LOST}"


def save_marks(path: Path, marks: Marks) -> None:
    """Replace the state file; on OSError the old one stands."""
    data = json.dumps(marks_to_json(marks), indent=1, ensure_ascii=True).encode("ascii") + b"\n"
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write_and_sync(fd, data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def _write_and_sync(fd: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(directory: Path) -> None:
    """Make the rename durable.  The new content already stands, so a failure here takes nothing back."""
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class MarksFile:
    """The current marks and the file that keeps them: nothing becomes current that was not written first."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self.path = path
        self.marks, self.trouble = load_marks(path, now())

    def replace(self, marks: Marks) -> None:
        """Keep new marks; OSError when they cannot be written, and then the old ones stand."""
        if marks == self.marks:
            return
        save_marks(self.path, marks)
        self.marks = marks
