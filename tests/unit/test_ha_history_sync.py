"""The history of a pair: what tells two versions apart, and that what differs is copied."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from lbfast.config.versions import GIVEN, Version, VersionStore, decode_version
from lbfast.ha.history_sync import HistorySync


def box(directory: Path) -> tuple[HistorySync, VersionStore]:
    """With a first version, of a file of its own, and a second one that runs."""
    directory.mkdir()
    store = VersionStore(directory)
    for number in (1, 2):
        store.add(Version(number, "2026-11-30T08:00:00+00:00", "root", GIVEN, str(directory / "lbfast.toml")), "text")

    async def control(verb: str, **args: Any) -> dict[str, Any]:
        if verb == "replica_version_write":
            document = json.loads(args["version"])
            store.add(decode_version(document["number"], document), args["text"])
        return {}

    return HistorySync(directory, control), store


def test_boxes_that_were_started_in_the_same_second_have_one_history_all_the_same(tmp_path: Path) -> None:
    """Only the name of the file tells their first versions apart."""
    (ours, store), (theirs, others) = box(tmp_path / "a"), box(tmp_path / "b")
    assert not ours.is_same(theirs.digest())

    async def question(verb: str, args: dict[str, Any]) -> dict[str, Any]:
        return await (theirs.on_history(args) if verb == "history" else theirs.on_version(args))

    assert asyncio.run(ours.copy(question, theirs.digest()))
    assert store.get(1) == others.get(1)
    assert ours.is_same(theirs.digest())
