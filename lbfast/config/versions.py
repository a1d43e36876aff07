"""The configurations that were running: each a text and who, when and why, kept in the state directory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lbfast.config.aside import keep_aside, move_aside
from lbfast.config.files import write_atomically

DIRECTORY = "versions"
MOST = 100
_NAME = re.compile(r"(\d{6,9})\.json")


@dataclass(frozen=True)
class Version:
    """One configuration that was running."""

    number: int
    at: str  # ISO 8601 with zone
    by: str
    reason: str
    file: str
    changes: tuple[str, ...] = ()  # against the one before


class VersionStore:
    """Numbered versions, the oldest dropped beyond MOST.  A version exists once its ``.json`` does."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / DIRECTORY

    def numbers(self) -> list[int]:
        """Ascending."""
        try:
            with self._pinned() as place:
                names = os.listdir(place)
        except OSError:
            return []
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def newest(self) -> int:
        """0 when there is none."""
        return max(self.numbers(), default=0)

    def all(self) -> list[Version]:
        """The newest first; one whose file cannot be read is left out."""
        found = (self._read(number) for number in reversed(self.numbers()))
        return [version for version in found if version is not None]

    def text(self, number: int) -> str | None:
        """The configuration as it was given; None when it is not kept."""
        try:
            return self._bytes(number, "toml").decode()
        except (OSError, UnicodeDecodeError):
            return None

    def add(self, version: Version, text: str) -> None:
        """Keep a version; OSError when it cannot be written, and then it is not there."""
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        document = json.dumps(asdict(version), indent=1)
        with self._pinned() as place:
            write_atomically(place / _name(version.number, "toml"), text.encode(), mode=0o600)
            write_atomically(place / _name(version.number, "json"), document.encode(), mode=0o600)
        self._drop(self.numbers()[:-MOST])

    def move_damaged(self) -> list[str]:
        """Put versions aside that do not read, both files; what is to be told of each."""
        told = []
        if self.directory.is_symlink():
            aside = move_aside(self.directory).name
            told.append(f"{self.directory} was a link: moved to {aside}; earlier versions are not in the history")
        for number in self.numbers():
            path, lost = self._path(number, "json"), f"version {number} cannot be shown or reverted to"
            damage = keep_aside(path, partial(_decode, number), lost)
            if damage is None and self.text(number) is None:
                damage = keep_aside(path, _no_text, lost)
            if damage is not None:
                told.append(damage)
                with suppress(OSError):
                    move_aside(self._path(number, "toml"))
        return told

    def drop_after(self, number: int) -> None:
        """Forget versions that were written but never ran."""
        self._drop([each for each in self.numbers() if each > number])

    def _drop(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        with self._pinned() as place:
            for number in numbers:
                for kind in ("json", "toml"):
                    (place / _name(number, kind)).unlink(missing_ok=True)

    def _path(self, number: int, kind: str) -> Path:
        return self.directory / _name(number, kind)

    @contextmanager
    def _pinned(self) -> Iterator[Path]:
        """The directory itself, whatever becomes of its name: root writes, and control's user could lay a link."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield Path(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def _bytes(self, number: int, kind: str) -> bytes:
        """Of a regular file, never of what a link names: a text that does not read is quoted when it is told."""
        with self._pinned() as place:
            fd = os.open(place / _name(number, kind), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            return stream.read()

    def _read(self, number: int) -> Version | None:
        try:
            return _decode(number, json.loads(self._bytes(number, "json")))
        except (OSError, ValueError, RecursionError):
            return None


def _name(number: int, kind: str) -> str:
    return f"{number:06}.{kind}"


def _no_text(_: Any) -> None:
    raise ValueError("its configuration is missing or no text")


def _decode(number: int, document: Any) -> Version:
    if not isinstance(document, dict):
        raise ValueError("not an object")
    if document.get("number") != number:
        raise ValueError(f"number {document.get('number')!r} where version {number} is kept")
    changes = document.get("changes")
    at, by, reason, file = (str(document.get(key, "")) for key in ("at", "by", "reason", "file"))
    return Version(number, at, by, reason, file, tuple(map(str, changes)) if isinstance(changes, list) else ())


def adopt_text(store: VersionStore, text: str, make: Version, above: int = 0) -> tuple[int, str | None]:
    """The version that a start runs: the newest if it is this text, else a new one; and what went wrong.

    ``make.number`` is replaced.  A new version gets a number ``above`` one that was there once.
    """
    newest = store.newest()
    if newest and newest >= above and store.text(newest) == text:
        return newest, None
    number = max(newest, above) + 1
    try:
        store.add(Version(number, make.at, make.by, make.reason, make.file, make.changes), text)
    except OSError as error:
        return number, f"the configuration cannot be kept as version {number} in {store.directory}: {error.strerror}"
    return number, None
