"""What has not moved: reset once the peer has its address, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from moving_stage import COUNT, Box, Stage, goes_on, is_reset, staged

from lbfast._shm import now_ms
from lbfast.ha import sweeping
from lbfast.ha.note import Role
from lbfast.model.state import Ended

pytestmark = pytest.mark.root


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(sweeping, "_STRAGGLERS_S", 0.01)
    with staged() as found:
        yield found


async def swept(box: Box) -> None:
    assert box.giver.sweeper.task is not None
    await box.giver.sweeper.task


@pytest.mark.parametrize("late", [0, 3])
def test_what_has_lost_its_address_to_the_peer_is_reset(stage: Stage, late: int) -> None:
    """... when the peer says so; what was being connected then is looked for once more."""
    giver = stage.giver
    giver.conns = stage.all[late:]

    async def move() -> None:
        giver.is_active = False
        giver.giver.depart()
        await asyncio.sleep(0.02)
        assert giver.conns == stage.all[late:], "nobody has the address yet"
        giver.is_peer_active = True
        while giver.conns:
            await asyncio.sleep(0.001)
        giver.conns = stage.all[:late]
        await swept(giver)

    asyncio.run(move())
    is_reset(stage)
    assert giver.ended == {int(Ended.TAKEOVER)}


def test_a_worker_that_sends_a_few_at_a_time_is_asked_again(stage: Stage) -> None:
    giver = stage.giver
    send, left = giver.send_conns, list(stage.all)

    def send_two(outbox: int) -> None:
        giver.conns = left[:2]
        del left[:2]
        send(outbox)

    async def move() -> None:
        giver.send_conns = send_two  # type: ignore[method-assign]
        giver.is_active, giver.is_peer_active = False, True
        giver.giver.depart()
        await swept(giver)

    asyncio.run(move())
    is_reset(stage)
    assert any(f"{COUNT} connections are reset" in words for words in giver.said)


def test_what_has_lost_its_address_to_nobody_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_SUCCESSOR_MS", 20)

    async def move() -> None:
        stage.giver.is_active = False
        stage.giver.giver.depart()
        await swept(stage.giver)

    asyncio.run(move())
    assert stage.giver.conns == stage.all


def test_what_comes_when_the_address_is_back_goes_on(stage: Stage) -> None:
    giver = stage.giver

    async def move() -> None:
        giver.is_active, giver.is_peer_active = False, True
        send = giver.send_conns

        def come_back(outbox: int) -> None:
            giver.is_active, giver.is_peer_active = True, False
            giver.taker.arrive()
            send(outbox)

        giver.send_conns = come_back  # type: ignore[method-assign]
        giver.giver.depart()
        await swept(giver)
        while giver.giver.means.doors._waiting:
            await asyncio.sleep(0.001)

    asyncio.run(move())
    goes_on(stage, giver)


def test_connections_of_an_address_that_does_not_move_stay(stage: Stage) -> None:
    async def move() -> None:
        stage.giver.is_active, stage.giver.is_peer_active = False, True
        stage.giver.giver.means.moving = lambda: ()
        stage.giver.giver.depart()
        await swept(stage.giver)

    asyncio.run(move())
    assert stage.giver.conns == stage.all


def test_a_successor_without_the_addresses_resets_what_the_workers_still_have(stage: Stage) -> None:
    """Its predecessor died before they had sent anything."""
    giver = stage.giver

    async def move() -> None:
        giver.giver.means.note.begin(Role.GIVEN, now_ms())
        kept = giver.kept()
        giver.die()
        giver.is_active, giver.is_peer_active = False, True
        await giver.giver.recover(kept)
        await swept(giver)

    asyncio.run(move())
    is_reset(stage)
