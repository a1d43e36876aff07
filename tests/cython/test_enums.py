"""The numbers of the C enums and of model.state are the same."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from lbfast.model import state

FOLDER = Path(state.__file__).parent.parent
PAIRS = [
    ("_table.pxd", "SCHED", state.Scheduler),
    ("_table.pxd", "DRAIN", state.DrainPolicy),
    ("_table.pxd", "LIMIT", state.AtLimit),
    ("_table.pxd", "ADMIN", state.Admin),
    ("_table.pxd", "HEALTH", state.Health),
    ("_conn.pxd", "PHASE", state.Phase),
    ("_conn.pxd", "REASON", state.Reason),
    ("_conn.pxd", "ENDED", state.Ended),
    ("_conn.pxd", "BY", state.EndedBy),
    ("_ring.pxd", "EVENT", state.EventKind),
]


@pytest.mark.parametrize(("file", "prefix", "words"), PAIRS, ids=[p[1] for p in PAIRS])
def test_same_numbers(file: str, prefix: str, words: type[IntEnum]) -> None:
    text = (FOLDER / file).read_text()
    enums = re.findall(r"cdef enum[^:]*:\n((?:    .*\n)+)", text)
    found = {
        name: int(number)
        for body in enums
        for name, number in re.findall(rf"^    {prefix}_(\w+) = (\d+)", body, re.MULTILINE)
        if name != "SIZE"
    }
    assert found == {word.name: int(word) for word in words}
