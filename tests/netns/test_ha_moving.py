"""Both halves of a move: whatever fails, each connection has one fate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from moving_stage import COUNT, Stage, are_reset, go_on, goes_on, is_reset, staged

from lbfast._shm import now_ms
from lbfast.ha import giving, taking

pytestmark = pytest.mark.root


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as found:
        yield found


def test_they_change_boxes(stage: Stage) -> None:
    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.arrive()

    asyncio.run(move())
    goes_on(stage, stage.taker)
    assert any(f"{COUNT} of {COUNT} connections taken over" in words for words in stage.taker.said)
    assert (stage.giver.note_fd, stage.taker.note_fd) == (-1, -1)


def test_without_a_takeover_they_go_on_where_they_are(stage: Stage) -> None:
    async def move() -> None:
        await stage.taker.taker.fetch()
        await stage.taker.taker.give_up()

    asyncio.run(move())
    goes_on(stage, stage.giver)


@pytest.mark.parametrize("where", ["images", "take_connections"])
def test_a_link_that_breaks_meanwhile(stage: Stage, where: str) -> None:
    stage.wire.breaks_at = where
    asyncio.run(stage.taker.taker.fetch())
    assert any("not moved" in words for words in stage.taker.said)
    goes_on(stage, stage.giver)


def test_a_peer_that_dies_before_it_has_the_addresses(stage: Stage) -> None:
    """Nobody has them any more; the box that gets its addresses back says so, instead of leaving clients to wait."""

    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.taker.die()
        stage.giver.is_active = True
        stage.giver.giver.come_back()

    asyncio.run(move())
    is_reset(stage)
    assert any(f"{COUNT} connections that were the peer's are reset" in words for words in stage.giver.said)


def test_what_has_departed_is_held_for_a_while_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving, "_HOLD_S", 0.01)

    async def move() -> None:
        await stage.taker.taker.fetch()
        held = stage.giver.giver._given[0].ends
        stage.let_go()
        while stage.giver.giver._departed:
            await asyncio.sleep(0.001)
        for fd in held:
            with pytest.raises(OSError):
                os.fstat(fd)
        stage.arrive()

    asyncio.run(move())
    goes_on(stage, stage.taker)


def test_what_comes_too_late_is_reset(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.giver.giver.forget()
        stage.wire.let_through()
        later = now_ms() + 10 * taking.TAKE_WITHIN_MS
        monkeypatch.setattr(stage.taker.taker.means, "now", lambda: later)
        stage.taker.is_active = True
        stage.taker.taker.arrive()

    asyncio.run(move())
    is_reset(stage)


def test_what_was_not_shipped_whole_is_reset_when_the_addresses_go(stage: Stage) -> None:
    """The giver does not know whether the other box has it; so the other one must not set it going either."""

    async def move() -> None:
        done = asyncio.Event()

        async def hang(*_: object) -> dict[str, Any]:
            stage.let_go()
            done.set()
            return {"ok": True, "failed": {}}

        stage.wire.ask = hang  # type: ignore[method-assign]
        await stage.taker.taker.fetch()
        assert done.is_set()

    asyncio.run(move())
    is_reset(stage)


ARRIVING = 2  # of COUNT, in one piece


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As thousands of connections are."""
    monkeypatch.setattr(taking, "BATCH", ARRIVING)


@pytest.mark.usefixtures("in_pieces")
def test_many_are_set_going_piece_by_piece(stage: Stage) -> None:
    """So that heartbeats are sent meanwhile."""
    left = []

    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.arrive()
        while stage.taker.taker._arriving:
            left.append(len(stage.taker.taker._arriving))
            assert stage.taker.note_fd >= 0, "a successor must find what is not set going yet"
            await asyncio.sleep(0)

    asyncio.run(move())
    assert left[0] == COUNT - ARRIVING
    assert left[-1] == COUNT % ARRIVING
    goes_on(stage, stage.taker)
    assert [words for words in stage.taker.said if f"{COUNT} of {COUNT} connections taken over" in words]
    assert (stage.giver.note_fd, stage.taker.note_fd) == (-1, -1)


@pytest.mark.usefixtures("in_pieces")
def test_addresses_that_go_again_before_all_are_set_going(stage: Stage) -> None:
    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.arrive()
        stage.taker.is_active = False
        stage.taker.taker.depart()
        await asyncio.sleep(0.01)

    asyncio.run(move())
    go_on(stage.all[:ARRIVING], stage.taker)
    are_reset(stage.all[ARRIVING:])
    assert stage.taker.note_fd == -1
    assert not [words for words in stage.taker.said if "connections taken over" in words]


@pytest.mark.usefixtures("in_pieces")
def test_a_process_that_ends_before_all_are_set_going(stage: Stage) -> None:
    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.arrive()
        stage.taker.mover.stay()

    asyncio.run(move())
    goes_on(stage, stage.taker)


@pytest.mark.usefixtures("in_pieces")
def test_they_are_given_away_again_when_all_have_arrived(stage: Stage) -> None:
    """An order on the other box, a moment after this one has got them."""

    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.arrive()
        stage.taker.peer = None
        answer = await stage.taker.mover.on_give({"move": 7})
        assert not answer["ok"], "there is no peer; that was asked when all had arrived"
        assert not stage.taker.taker._arriving

    asyncio.run(move())
    goes_on(stage, stage.taker)
