"""Both halves of a move: whatever fails, each connection has one fate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from moving_stage import COUNT, Stage, goes_on, is_reset, staged

from lbfast._shm import now_ms
from lbfast.ha import giving

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
        later = now_ms() + 10_000
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
