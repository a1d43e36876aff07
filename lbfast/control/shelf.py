"""Files that lbfast makes or is given, and that people fetch: backups and support archives, in pieces over the control
socket, because whoever asks may not read the state directory."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from lbfast.config.files import write_atomically
from lbfast.control.protocol import ControlError

BACKUP: Final = "backup"
SUPPORT: Final = "support"
FOLDERS: Final = {BACKUP: "backups", SUPPORT: "support"}
PIECE: Final = 512 * 1024
MOST_BYTES: Final = 64 << 20
MOST_FILES: Final = {BACKUP: 200, SUPPORT: 5}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PART: Final = ".part"


class Shelf:
    """The files of both kinds."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def path(self, kind: str, name: str) -> Path:
        """Where a file is, or would be; ControlError for a name that is none."""
        if kind not in FOLDERS:
            raise ControlError("bad_argument", f"kind: expected {' or '.join(FOLDERS)}, found {kind[:40]!r}")
        if not _NAME.fullmatch(name) or name.endswith(_PART):
            raise ControlError("bad_argument", f"name: expected letters, digits, dots and dashes, found {name[:80]!r}")
        return self._state_dir / FOLDERS[kind] / name

    def found(self, kind: str, name: str) -> Path:
        path = self.path(kind, name)
        if path.is_symlink() or not path.is_file():
            raise ControlError("bad_argument", f"there is no {kind} file {name!r}; see the list")
        return path

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The newest first."""
        folder = self.path(kind, "x").parent
        try:
            entries = [it for it in os.scandir(folder) if _NAME.fullmatch(it.name) and not it.name.endswith(_PART)]
        except OSError:
            return []
        files = [(it.stat(), it.name) for it in entries if it.is_file(follow_symlinks=False)]
        files.sort(key=lambda it: (it[0].st_mtime, it[1]), reverse=True)
        return [{"name": name, "size": status.st_size, "modified": status.st_mtime} for status, name in files]

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """The same with times for people."""
        return [
            {**it, "modified": datetime.fromtimestamp(it["modified"]).astimezone().isoformat(timespec="seconds")}
            for it in self.all(kind)
        ]

    def write(self, kind: str, name: str, content: bytes) -> Path:
        """A whole file; the oldest beyond the most there may be is dropped."""
        path = self.path(kind, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, content, mode=0o600)
        self.drop(kind, MOST_FILES[kind], lambda _: True)
        return path

    def drop(self, kind: str, keep: int, which: Callable[[str], bool]) -> list[str]:
        """Remove all but the newest ``keep`` of those that ``which`` names."""
        names = [it["name"] for it in self.all(kind) if which(it["name"])][keep:]
        for name in names:
            self.path(kind, name).unlink(missing_ok=True)
        return names

    def remove(self, kind: str, name: str) -> None:
        self.found(kind, name).unlink()

    def read_piece(self, kind: str, name: str, offset: int) -> dict[str, Any]:
        path = self.found(kind, name)
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(offset)
            data = stream.read(PIECE)
        following = offset + len(data)
        next_offset = following if following < size else None
        return {"name": name, "size": size, "data": base64.b64encode(data).decode(), "next": next_offset}

    def put_piece(self, kind: str, name: str, offset: int, data: str, *, is_last: bool) -> dict[str, Any]:
        """Take the next piece of an upload; the file exists once the last one has come."""
        path = self.path(kind, name)
        part = path.with_name(f"{name}{_PART}")
        try:
            content = base64.b64decode(data, validate=True)
        except ValueError:
            raise ControlError("bad_argument", "data: expected base64") from None
        if offset + len(content) > MOST_BYTES:
            raise ControlError("refused", f"a file has at most {MOST_BYTES >> 20} MiB")
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if offset else os.O_TRUNC)
        fd = os.open(part, flags, 0o600)
        try:
            if os.fstat(fd).st_size != offset:
                raise ControlError("conflict", f"the next piece begins at {os.fstat(fd).st_size}, not at {offset}")
            os.pwrite(fd, content, offset)
            if is_last:
                os.fsync(fd)
                os.replace(part, path)
        finally:
            os.close(fd)
        return {"name": name, "size": offset + len(content), "complete": is_last}
