"""When the overview's figures are asked for again: news end every pause, and a busy machine makes none longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lbfast.web import live
from lbfast.web.live import Live


def overview(connections: int) -> dict[str, Any]:
    service = {"label": "Symphony", "address": "10.0.0.1", "ports": "443", "mode": "tcp", "state": "up"}
    return {"virtual_services": [service | {"connections": connections, "persistence_entries": 0, "real_servers": []}]}


STATISTICS: dict[str, Any] = {"virtual_services": [], "workers": [], "real_servers": []}


class Client:
    """Control: ``happen`` is an event; an answer takes ``wall`` seconds, in which nobody computes."""

    def __init__(self, wall: float = 0.0) -> None:
        self.connections = 0
        self.asked = 0
        self.wall = wall
        self.happen: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def call(self, verb: str) -> dict[str, Any]:
        await asyncio.sleep(self.wall)
        if verb == "statistics":
            return STATISTICS
        self.asked += 1
        return overview(self.connections)

    async def stream(self, verb: str, **args: Any) -> AsyncIterator[dict[str, Any]]:
        assert (verb, args) == ("events", {"follow": True, "connections": False})
        while True:
            yield await self.happen.get()


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.HostFigures, "figures", lambda *_: {})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_an_event_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WATCHED_S", 3600.0)
    monkeypatch.setattr(live, "ALONE_S", 3600.0)

    async def play() -> None:
        client = Client()
        feed = Live(client, asyncio.Event())  # type: ignore[arg-type]
        seen: list[bytes] = []

        async def look() -> None:
            async for message in feed.feed():
                seen.append(message)  # noqa: PERF401 - a comprehension would show them at the end

        looking = asyncio.create_task(look())
        await until(lambda: client.asked > 0 and len(seen) > 1)
        client.connections = 7
        client.happen.put_nowait({"event": "admin"})
        await until(lambda: any(b'"connections":7' in message for message in seen))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        assert client.asked == 2
        await feed.stop()

    asyncio.run(play())


def test_time_that_nobody_computed_in_makes_no_pause_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def wait(_event: asyncio.Event, seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.Event().wait()

    monkeypatch.setattr(live, "_wait", wait)
    monkeypatch.setattr(time, "process_time", lambda: 0.0)

    async def play() -> None:
        feed = Live(Client(wall=0.2), asyncio.Event())  # type: ignore[arg-type]
        looking = asyncio.create_task(anext(feed.feed()))
        await until(lambda: bool(pauses))
        await asyncio.gather(looking)
        await feed.stop()

    asyncio.run(play())
    assert pauses[0] < live.WATCHED_S, "as long as it can be, if the 0.4 s of waiting counted"
