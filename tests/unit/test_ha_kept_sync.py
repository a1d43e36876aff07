"""Two boxes and what their controls keep: whose wins, that nothing is taken over twice, that nothing is lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lbfast.ha.kept_sync import KeptSync, Part

PART = Part("candidate", "candidate.json", "candidate", yields=True)


class Box:
    """A state directory, and a control process that reads and writes one file of it.  ``accent``: another release."""

    def __init__(self, directory: Path, *, is_primary: bool, accent: str = "") -> None:
        directory.mkdir()
        self.directory, self.is_primary, self.accent = directory, is_primary, accent
        self.writes: list[tuple[str | None, bool]] = []
        self.told: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.sync = KeptSync(self.directory, self.control, lambda: self.is_primary, self.told.append, (PART,))

    @property
    def path(self) -> Path:
        return self.directory / PART.file

    @property
    def has(self) -> str | None:
        return json.loads(self.path.read_text())["it"] if self.path.exists() else None

    def edit(self, what: str | None) -> None:
        if what is None:
            self.path.unlink(missing_ok=True)
        else:
            self.path.write_text(json.dumps({"it": what, "accent": self.accent}))

    async def control(self, verb: str, **args: Any) -> dict[str, Any]:
        if verb == "replica_candidate_read":
            return {"candidate": self.has}
        assert verb == "replica_candidate_write"
        what = json.loads(args["candidate"])
        self.writes.append((what, args.get("keep_own", False)))
        self.edit(what)
        return {}


class Two:
    def __init__(self, directory: Path, accent: str = "") -> None:
        self.a = Box(directory / "a", is_primary=True)
        self.b = Box(directory / "b", is_primary=False, accent=accent)

    def meet(self, times: int = 3) -> None:
        """Each describes itself to the other, in turn."""

        async def turns() -> None:
            for _ in range(times):
                for box, other in ((self.b, self.a), (self.a, self.b)):

                    async def ask(_verb: str, _args: Any, of: Box = other) -> Any:
                        return await of.sync.on_part(PART)

                    await box.sync.compare(ask, other.sync.facts())

        asyncio.run(turns())


@pytest.fixture(params=["", "another release"])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Two:
    return Two(tmp_path, request.param)


def test_the_primarys_is_taken_over_once(two: Two) -> None:
    two.a.edit("mine")
    two.meet()
    assert (two.a.has, two.b.has) == ("mine", "mine")
    assert (two.a.writes, two.b.writes) == ([], [("mine", False)])


def test_what_is_gone_goes_on_the_other_box_too(two: Two) -> None:
    two.a.edit("mine")
    two.meet()
    two.a.edit(None)
    two.meet()
    assert two.b.has is None
    assert two.a.has is None


@pytest.mark.parametrize("restarts", ["", "a", "b", "ab"])
def test_what_one_box_changed_while_the_other_was_away_wins(two: Two, restarts: str) -> None:
    two.a.edit("old")
    two.meet()
    two.b.edit("new")
    for name in restarts:
        getattr(two, name).restart()
    two.meet()
    assert (two.a.has, two.b.has) == ("new", "new")
    assert two.a.writes == [("new", False)]


def test_of_two_changes_the_primarys_wins_and_the_other_is_kept(two: Two) -> None:
    two.a.edit("old")
    two.meet()
    two.a.edit("mine")
    two.b.edit("theirs")
    two.meet()
    assert (two.a.has, two.b.has) == ("mine", "mine")
    assert two.b.writes[-1] == ("mine", True)


def test_an_earlier_release_without_it_is_left_alone(two: Two) -> None:
    two.a.edit("mine")

    async def ask(verb: str, _args: Any) -> Any:
        raise AssertionError(f"{verb}: nothing is to be asked")

    asyncio.run(two.a.sync.compare(ask, {"generation": 3, "marks": ""}))
    assert two.a.has == "mine"
