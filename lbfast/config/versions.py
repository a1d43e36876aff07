"""The configurations that were running: each a text and who, when and why, kept in the state directory."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from lbfast.config.aside import keep_aside, move_aside
from lbfast.config.files import write_atomically
from lbfast.config.taken import is_file_known

DIRECTORY = "versions"
ASIDE = "versions-aside"
MOST = 100
GIVEN = "given at start"
"""The reason of a version that a start made of its file."""

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

    def get(self, number: int) -> Version | None:
        """One of them; None when it is not kept, or does not read."""
        return self._read(number)

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
        if oldest := self.numbers()[:-MOST]:
            lasting = self._lasting()
            self._drop([number for number in oldest if number not in lasting])

    def _lasting(self) -> set[int]:
        """What the next start has to know, however long ago: of which file the last one made a version, and when that
        file was last taken.
        """
        versions = self.all()
        started = next((version for version in versions if version.reason == GIVEN), None)
        if started is None:
            return set()
        return {started.number, next(version.number for version in versions if version.file == started.file)}

    def move_damaged(self) -> list[str]:
        """Put versions aside that do not read, both files; what is to be told of each."""
        told = []
        if self.directory.is_symlink():
            aside = move_aside(self.directory).name
            told.append(f"{self.directory} was a link: moved to {aside}; earlier versions are not in the history")
        for number in self.numbers():
            path, lost = self._path(number, "json"), f"version {number} cannot be shown or reverted to"
            damage = keep_aside(path, partial(decode_version, number), lost)
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

    def digest(self, number: int) -> str:
        """Of the text; "" when it is not kept."""
        try:
            return hashlib.sha256(self._bytes(number, "toml")).hexdigest()
        except OSError:
            return ""

    def stamp(self, number: int) -> tuple[int, ...]:
        """Changes when the text is replaced, for who keeps its digest; () when it is not kept."""
        try:
            found = self._path(number, "toml").lstat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def put_aside(self, numbers: Sequence[int]) -> list[int]:
        """Take versions out of the history and keep them beside it, each text once, at most MOST; which were new there.

        OSError when that cannot be done.
        """
        if not numbers:
            return []
        aside = self.directory.with_name(ASIDE)
        aside.mkdir(mode=0o750, exist_ok=True)
        moved = []
        with self._pinned() as place, _pinned(aside) as beside:
            known = {hashlib.sha256(path.read_bytes()).hexdigest() for path in beside.glob("*.toml")}
            for number in numbers:
                free, digest = _first_free(beside, number), self.digest(number)
                if digest and digest not in known:
                    known.add(digest)
                    moved.append(number)
                    for kind in ("toml", "json"):
                        os.rename(place / _name(number, kind), beside / f"{free}.{kind}")
            for path in sorted(beside.glob("*.json"), key=lambda path: path.lstat().st_mtime_ns)[:-MOST]:
                path.unlink()
                path.with_suffix(".toml").unlink(missing_ok=True)
        self._drop(numbers)
        return moved

    def _drop(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        with self._pinned() as place:
            for number in numbers:
                for kind in ("json", "toml"):
                    (place / _name(number, kind)).unlink(missing_ok=True)

    def _path(self, number: int, kind: str) -> Path:
        return self.directory / _name(number, kind)

    def _pinned(self) -> AbstractContextManager[Path]:
        return _pinned(self.directory)

    def _bytes(self, number: int, kind: str) -> bytes:
        """Of a regular file, never of what a link names: a text that does not read is quoted when it is told."""
        with self._pinned() as place:
            fd = os.open(place / _name(number, kind), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            return stream.read()

    def _read(self, number: int) -> Version | None:
        try:
            return decode_version(number, json.loads(self._bytes(number, "json")))
        except (OSError, ValueError, RecursionError):
            return None


@contextmanager
def _pinned(directory: Path) -> Iterator[Path]:
    """The directory itself, whatever becomes of its name: root writes, and control's user could lay a link."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _first_free(place: Path, number: int) -> str:
    """A name for one more version of this number."""
    names = (f"{number:06}-{again}" for again in count(1))
    return next(name for name in names if not (place / f"{name}.json").exists())


def _name(number: int, kind: str) -> str:
    return f"{number:06}.{kind}"


def _no_text(_: Any) -> None:
    raise ValueError("its configuration is missing or no text")


def decode_version(number: int, document: Any) -> Version:
    """As it is kept, or as the peer has sent it; ValueError for what is none.  A later release may say more."""
    if not isinstance(document, dict):
        raise ValueError("not an object")
    if document.get("number") != number:
        raise ValueError(f"number {document.get('number')!r} where version {number} is kept")
    changes = document.get("changes")
    at, by, reason, file = (str(document.get(key, "")) for key in ("at", "by", "reason", "file"))
    return Version(number, at, by, reason, file, tuple(map(str, changes)) if isinstance(changes, list) else ())


def adopt_text(store: VersionStore, text: str, make: Version, above: int = 0) -> tuple[int, str | None]:
    """The version that a start runs: the newest if it is this text, else a new one; and what went wrong.

    ``make.number`` is replaced.  A new version gets a number ``above`` one that was there once.  A file that was never
    taken makes one, too: later starts ask whether it has been edited since.
    """
    newest = store.newest()
    is_known = is_file_known(store.directory.parent, make.file) or any(it.file == make.file for it in store.all())
    if newest and newest >= above and is_known and store.text(newest) == text:
        return newest, None
    number = max(newest, above) + 1
    try:
        store.add(Version(number, make.at, make.by, make.reason, make.file, make.changes), text)
    except OSError as error:
        return number, f"the configuration cannot be kept as version {number} in {store.directory}: {error.strerror}"
    return number, None
