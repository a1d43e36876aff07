"""A move whose process dies: its successor goes on, or ends what would hang."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from moving_stage import COUNT, Stage, are_reset, go_on, goes_on, is_reset, staged

from lbfast.ha import doors, giving
from lbfast.ha.doors import Held
from lbfast.ha.note import Role

pytestmark = pytest.mark.root


class Killed(BaseException):
    """Nothing of the process runs any more."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as found:
        yield found


def test_a_successor_of_the_giver_goes_on(stage: Stage) -> None:
    """Its process has died: the frozen sockets went without a word, the note is with the supervisor."""

    async def move() -> None:
        await stage.taker.taker.fetch()
        kept = stage.giver.kept()
        assert (kept.role, kept.is_shipped) == (Role.GIVEN, True)
        stage.giver.die()
        await stage.giver.giver.recover(kept)
        stage.giver.giver.keep()

    asyncio.run(move())
    goes_on(stage, stage.giver)


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("frozen", [0, 1, COUNT - 1])
def test_a_successor_of_a_giver_that_was_still_freezing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, frozen: int, is_active: bool
) -> None:
    """What has an image goes on, or is reset with the addresses gone; the rest of its batch is reset, frozen or not."""
    giver, count = stage.giver, 0

    def die_at(held: Held) -> None:
        nonlocal count
        freeze(held)
        if count == frozen:
            raise Killed  # frozen, and not in the note yet
        count += 1

    freeze = giving._freeze_both
    monkeypatch.setattr(giving, "_freeze_both", die_at)

    async def move() -> None:
        with pytest.raises(Killed):
            await stage.taker.taker.fetch()
        kept = giver.kept()
        assert len(kept.entrusted) == 2 * COUNT
        giver.die()
        giver.drop_note()
        giver.is_active = is_active
        await giver.giver.recover(kept)
        await asyncio.sleep(0)
        if is_active:
            giver.giver.keep()

    asyncio.run(move())
    alive, ended = stage.all[: frozen * is_active], stage.all[frozen * is_active :]
    are_reset(ended)
    go_on(alive, giver)
    assert any(f"{COUNT - frozen} that were just being frozen are reset" in words for words in giver.said)


def test_a_successor_without_the_addresses_lets_go_silently_of_what_the_peer_has(stage: Stage) -> None:
    async def move() -> None:
        await stage.taker.taker.fetch()
        kept = stage.giver.kept()
        stage.giver.die()
        stage.giver.is_active = False
        await stage.giver.giver.recover(kept)
        stage.arrive()

    asyncio.run(move())
    goes_on(stage, stage.taker)


@pytest.mark.parametrize("role", ["giver", "taker"])
def test_a_successor_whose_supervisor_is_slow(stage: Stage, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    """What it has found again is frozen: it waits for its workers, not for ever."""
    monkeypatch.setattr(doors, "_OPEN_S", 0.01)
    box = stage.giver if role == "giver" else stage.taker

    async def move() -> None:
        await stage.taker.taker.fetch()
        if role == "taker":
            stage.let_go()
            stage.giver.giver.forget()
            stage.wire.let_through()
        kept = box.kept(arrived=True)
        box.die()
        box.is_active, box.ignores = True, 3
        await (box.giver if role == "giver" else box.taker).recover(kept)
        if role == "giver":
            box.giver.keep()
        while box.giver.means.doors._waiting:
            await asyncio.sleep(0.001)

    asyncio.run(move())
    goes_on(stage, box)


@pytest.mark.parametrize("has_arrived", [True, False])
def test_a_successor_of_the_taker(stage: Stage, has_arrived: bool) -> None:
    """With the addresses here it goes on; where it cannot know, it resets, because nobody else has them."""

    async def move() -> None:
        await stage.taker.taker.fetch()
        stage.let_go()
        stage.giver.giver.forget()
        stage.wire.let_through()
        kept = stage.taker.kept(arrived=has_arrived)
        stage.taker.die()
        stage.taker.is_active = True
        await stage.taker.taker.recover(kept)

    asyncio.run(move())
    if has_arrived:
        goes_on(stage, stage.taker)
    else:
        is_reset(stage)
