"""Migrate: shared memory of an older layout, brought into the one of this program.

Each region says its kind and the version of its layout.  STEPS has one function for each
version that was left behind: from a region of it to a new one of the next.  Workers of the
program before stand still meanwhile, and then pass their connections on; what they
still count and hold is taken anew by whoever gets a connection, so it is not brought over.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._ring import Ring
from lbfast._shm import now_ms
from lbfast._stick import StickTable
from lbfast._table import Table
from lbfast.health import results
from lbfast.supervisor.estate import Estate

Step = Callable[[int], int]
"""From a descriptor of a region to that of a new one; the old one stays as it is and open."""

STEPS: Final[Mapping[tuple[str, int], Step]] = MappingProxyType({})
"""By kind and version of what is read."""

VERSIONS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "table": Table.VERSION,
        "counters": Counters.VERSION,
        "stick": StickTable.VERSION,
        "slab": Slab.VERSION,
        "ring": Ring.VERSION,
        "results": results.VERSION,
    }
)
_HEADER = struct.Struct("<8s16sII")  # of every region, for ever: magic, kind, version, reserved
_NEXT_ID = 64 + 16  # of a slab, for ever: the number of its next connection
_OWN = ("slab", "ring")  # of one worker alone: a new worker gets new ones
_CHUNK = 1 << 20


class MigrationError(Exception):
    """Memory that this program cannot read."""


def version_of(fd: int) -> int:
    """The layout that a region has."""
    return int(_HEADER.unpack(os.pread(fd, _HEADER.size, 0))[2])


def differs(estate: Estate) -> bool:
    """Is anything of another layout?"""
    return any(
        kind in VERSIONS and version_of(fd) != VERSIONS[kind]
        for name, fd in estate.fds.items()
        for kind in [name.partition(".")[0]]
    )


def migrate(estate: Estate) -> Estate:
    """The same estate on new memory, with seats that nobody has; the old memory's descriptors are closed.

    To be called while nobody writes; MigrationError, and nothing has changed, when a layout is not known.
    """
    old = {name: fd for name, fd in estate.fds.items() if name.partition(".")[0] in VERSIONS}
    new: dict[str, int] = {}
    try:
        for name, fd in old.items():
            kind = name.partition(".")[0]
            if kind not in _OWN:
                new[name] = bring_up(kind, fd)
        _forget_live(new)
    except BaseException:
        for fd in new.values():
            os.close(fd)
        raise
    numbers = [struct.unpack("<Q", os.pread(old[f"slab.{seat}"], 8, _NEXT_ID))[0] for seat in range(_seats(estate))]
    for fd in old.values():
        os.close(fd)
    rest = {name: fd for name, fd in estate.fds.items() if name not in old}
    facts = estate.facts | {"slabs": 0, "seats": [], "last": [], "numbers": numbers, "old_inboxes": _seats(estate)}
    return Estate(facts, rest | new)


def bring_up(kind: str, fd: int) -> int:
    """A copy of a region, in this program's layout."""
    copy = copy_memory(fd)
    while (version := version_of(copy)) != VERSIONS[kind]:
        step = STEPS.get((kind, version))
        if step is None:
            os.close(copy)
            raise MigrationError(f"region {kind}: layout version {version}, and none this program knows the way from")
        try:
            following = step(copy)
        finally:
            os.close(copy)
        copy = following
    return copy


def copy_memory(fd: int) -> int:
    """A memfd with the same content; holes stay holes."""
    size = os.fstat(fd).st_size
    copy = os.memfd_create("copy", os.MFD_CLOEXEC)
    os.ftruncate(copy, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break  # only a hole is left
        at = os.lseek(fd, start, os.SEEK_HOLE)
        for begin in range(start, at, _CHUNK):
            os.pwrite(copy, os.pread(fd, min(_CHUNK, at - begin), begin), begin)
    return copy


def _forget_live(fds: Mapping[str, int]) -> None:
    Table.attach(fds["table"]).forget_live()
    Counters.attach(fds["counters"]).forget_live()
    for name, fd in fds.items():
        if name.startswith("stick."):
            StickTable.attach(fd).forget_holds(now_ms())


def _seats(estate: Estate) -> int:
    return int(estate.facts["slabs"])
