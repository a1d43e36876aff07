"""What waits to be confirmed: on disk, on an explicit clock, through failures and restarts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lbfast.config.unconfirmed import Unconfirmed, hear_unconfirmed, load_confirmed, load_unconfirmed
from lbfast.control.confirm import Waiting
from lbfast.control.engine import Clock

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def record(version: int, seconds: int = 60) -> Unconfirmed:
    return Unconfirmed(version, version - 1, "root", NOW.replace(minute=seconds // 60).isoformat(), seconds)


class Timers:
    """``due``: seconds until the one that has not been cancelled; None without."""

    def __init__(self) -> None:
        self.due: float | None = None

    def call_later(self, delay: float, _callback: Callable[[], None], /) -> Timers:
        self.due = delay
        return self

    def cancel(self) -> None:
        self.due = None


class World:
    """The control processes of one state directory, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.restart(5)

    def restart(self, version: int, least: float = 0.0) -> None:
        self.timers = Timers()
        self.waiting = Waiting(self.directory, Clock(lambda: 0, lambda: NOW), lambda: None)
        self.damage = self.waiting.start(self.timers, version, least)

    @property
    def waits(self) -> int | None:
        return None if self.waiting.unconfirmed is None else self.waiting.unconfirmed.version


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def commit(world: World, version: int, waits: Unconfirmed | None) -> None:
    if waits is not None:
        world.waiting.keep(waits)
    world.waiting.begin(waits)
    assert world.waits == (None if waits is None else version)


def test_it_waits_through_a_restart(world: World) -> None:
    commit(world, 6, record(6))
    assert world.timers.due == 60
    world.restart(6, least=100.0)
    assert (world.waits, world.timers.due) == (6, 100.0)
    world.restart(7)
    assert (world.waits, load_unconfirmed(world.directory)) == (None, None)


def test_a_commit_that_failed_leaves_nothing_for_the_next_of_its_number(world: World) -> None:
    world.waiting.keep(record(6))
    world.waiting.restore()
    assert load_unconfirmed(world.directory) is None
    commit(world, 6, None)
    world.restart(6)
    assert world.waits is None


def test_a_revert_that_failed_leaves_what_waited(world: World) -> None:
    commit(world, 6, record(6))
    world.waiting.keep(record(7))
    world.waiting.restore()
    assert (world.waits, load_unconfirmed(world.directory)) == (6, record(6))


def test_a_confirmation_outlives_a_power_cut_that_brings_the_file_back(world: World) -> None:
    commit(world, 6, record(6))
    before = (world.directory / "confirm.json").read_bytes()
    world.waiting.confirm("root", for_peer=False)
    assert (world.timers.due, load_confirmed(world.directory)) == (None, (6, "root"))
    (world.directory / "confirm.json").write_bytes(before)
    world.restart(6)
    assert world.waits is None
    commit(world, 6, record(6))  # the number is used again, after a fall back
    world.restart(6)
    assert world.waits == 6


def test_without_room_a_box_alone_confirms_and_one_of_a_pair_says_that_it_cannot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for for_peer in (True, False):
        commit(world, 6, record(6))
        with monkeypatch.context() as patched:
            patched.setattr(world.waiting, "_write", full)
            if for_peer:
                with pytest.raises(OSError, match="No space"):
                    world.waiting.confirm("root", for_peer=True)
                assert world.waits == 6
            else:
                world.waiting.confirm("root", for_peer=False)
                assert world.waits is None


def test_the_peer_hears_ages_and_not_clocks(world: World) -> None:
    told = record(6, 120).as_told(NOW.replace(minute=1))
    assert told == {"version": 6, "before": 5, "by": "root", "length": 120, "left": 60}
    heard = hear_unconfirmed(told, datetime(2031, 1, 1, 0, 0, tzinfo=UTC))
    assert heard.deadline_at == "2031-01-01T00:01:00+00:00"
