"""What changes on the overview, told to every open page: one poll of lbfast for all of them.

How often depends on what an answer costs, so that many services cannot make the pages' updates a load of their own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from lbfast.web.client import AsyncClient, ControlError, ControlUnavailable
from lbfast.web.host import HostFigures
from lbfast.web.words import service_state, taken

WATCHED_S: Final = 1.0
ALONE_S: Final = 10.0  # nobody looks: only the little graphs go on
COST_SHARE: Final = 0.02  # of a core, for asking again and again
NEWS_SHARE: Final = 0.1  # while servers change their states, or operators change things
BOTH: Final = 6.0  # what control and this process spend, in CPU time of this one (`python -m bench.web_cost`)
NEWS_SPACE_S: Final = 0.1
SPARK_S: Final = 10.0
SPARK_POINTS: Final = 60
_BEHIND: Final = 8  # messages that a page may be behind before it has to begin anew

_SHOWN: Final = ("label", "state", "admin", "connections", "weight", "clients", "reason")

Service = dict[str, Any]


class Live:
    """Starts to ask with the first use."""

    def __init__(self, client: AsyncClient, stopping: asyncio.Event) -> None:
        self._client = client
        self._stopping = stopping
        self._queues: set[asyncio.Queue[bytes]] = set()
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._services: dict[str, Service] = {}
        self._shape: tuple[Any, ...] = ()
        self._host = HostFigures()
        self._is_away = False
        self.sparks = Sparks()
        self.summary: dict[str, Any] = {}

    async def feed(self) -> AsyncIterator[bytes]:
        """Server-sent events for one page, until it goes away or the process stops."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(_BEHIND)
        self._queues.add(queue)
        self.start()
        self._wake.set()
        try:
            yield b"retry: 2000\n\n" + _event("host", self.summary)
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(15.0):
                        yield await queue.get()
                        continue
                yield b": still here\n\n"
        finally:
            self._queues.discard(queue)
            if not self._queues and self._listening is not None:
                self._listening.cancel()
                self._listening = None

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        if self._queues and (self._listening is None or self._listening.done()):
            self._listening = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        for queue in self._queues:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(b": bye\n\n")
        tasks = [task for task in (self._task, self._listening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            before, spent = time.monotonic(), time.process_time()
            self._news.clear()
            try:
                await self._turn()
                self._is_away = False
            except (ControlError, ControlUnavailable) as error:
                if not self._is_away:
                    self._tell(_event("away", {"message": str(error)}))
                self._is_away = True
            # On a busy machine an answer takes long, and yet costs no more than ever.
            cost = min(time.monotonic() - before, BOTH * (time.process_time() - spent))
            self._wake.clear()
            await self._sleep(cost)

    async def _sleep(self, cost: float) -> None:
        """Until the next turn: as long as the last one's CPU time asks for, or until something has happened."""
        if not self._queues:
            await _wait(self._wake, ALONE_S)
            return
        least = min(WATCHED_S, max(NEWS_SPACE_S, cost / NEWS_SHARE))
        await asyncio.sleep(least)
        await _wait(self._news, min(ALONE_S, max(WATCHED_S, cost / COST_SHARE)) - least)

    async def _listen(self) -> None:
        """States and edits show at once, however rarely the figures are asked for."""
        while self._queues and not self._stopping.is_set():
            self._news.set()  # what has happened while nobody listened
            with suppress(ControlError, ControlUnavailable):
                async for _ in self._client.stream("events", follow=True, connections=False):
                    self._news.set()
            await asyncio.sleep(WATCHED_S)

    async def _turn(self) -> None:
        report = await self._client.call("overview")
        counted = await self._client.call("statistics")
        services = {it["label"]: it for it in report["virtual_services"]}
        shape = tuple(_shape(it) for it in report["virtual_services"])
        moved = self.sparks.count(counted, time.monotonic())
        self.summary = self._host.figures(counted, report["virtual_services"], time.monotonic())
        if not self._queues:
            self._services, self._shape = services, shape
            return
        message = _event("host", self.summary)
        if shape != self._shape:
            message += _event("shape", {})
        else:
            before = self._services
            changed = [change_of(before.get(label), it) for label, it in services.items() if before.get(label) != it]
            if changed:
                message += _event("services", changed)
        if moved:
            message += _event("sparks", self.sparks.newest())
        self._services, self._shape = services, shape
        self._tell(message)

    def _tell(self, message: bytes) -> None:
        for queue in self._queues:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:  # a page that is this far behind begins anew
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(_event("shape", {}))


class Sparks:
    """New connections per second of each service, in steps of ten seconds, for the last ten minutes."""

    def __init__(self) -> None:
        self._points: dict[str, deque[float]] = {}
        self._totals: dict[str, int] = {}
        self._at: float | None = None

    def count(self, statistics: dict[str, Any], now: float) -> bool:
        """Take a report in; whether a new point was made."""
        if self._at is not None and now - self._at < SPARK_S:
            return False
        span = now - self._at if self._at is not None else 0.0
        totals = {it["label"]: int(it["accepted"]) for it in statistics["virtual_services"]}
        for label, total in totals.items():
            points = self._points.setdefault(label, deque(maxlen=SPARK_POINTS))
            if span and label in self._totals:
                points.append(round(max(0, total - self._totals[label]) / span, 2))
        for label in set(self._points) - set(totals):
            del self._points[label]
        self._totals, self._at = totals, now
        return bool(span)

    def all(self) -> dict[str, list[float]]:
        return {label: list(points) for label, points in self._points.items()}

    def newest(self) -> dict[str, float]:
        """The last point of each service that has had a new connection since the one before."""
        return {label: points[-1] for label, points in self._points.items() if points and points[-1]}

    def of(self, label: str) -> list[float]:
        return list(self._points.get(label, ()))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def change_of(before: Service | None, after: Service) -> dict[str, Any]:
    """What a page needs to show a service anew: of its real servers only those that changed."""
    old = {} if before is None else {it["label"]: it for it in before["real_servers"]}
    return {
        "label": after["label"],
        "state": service_state(after),
        "connections": after["connections"],
        "entries": after["persistence_entries"],
        "taken": taken(after),
        "reals": [{key: it[key] for key in _SHOWN} for it in after["real_servers"] if old.get(it["label"]) != it],
    }


def _shape(service: Service) -> tuple[Any, ...]:
    """What the page's rows are made of: when it changes, they are made anew."""
    reals = [(it["label"], it["address"], it["port"]) for it in service["real_servers"]]
    fallback = service.get("fallback_server")
    place = (service["label"], service["address"], service["ports"], service["mode"])
    return (*place, tuple(reals), fallback and (fallback["address"], fallback["port"]))


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
