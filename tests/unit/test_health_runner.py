"""The runner with real listeners and a real table: timetable, failed connects, adoption, messages."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from waiting import TIMEOUT_SCALE

from lbfast.health.clock import now_ms
from lbfast.health.outcome import ProbeResult
from lbfast.health.passive import new_failures
from lbfast.health.probes import Prober
from lbfast.health.report import Outbox
from lbfast.health.results import ProbeResults
from lbfast.health.runner import Runner
from lbfast.health.spec import CheckedReal, FlapSpec, ProbeSpec, ProbeType
from lbfast.model.state import Health


class FakeTable:
    """The health columns of the table, and failed connects at will."""

    def __init__(self) -> None:
        self.healths: dict[int, tuple[Health, str, int]] = {}
        self.counters: dict[int, tuple[int, int, int]] = {}
        self.writes: list[tuple[int, Health, str]] = []

    def set_health(self, real: int, health: int, reason: str) -> None:
        self.healths[real] = (Health(health), reason, now_ms())
        self.writes.append((real, Health(health), reason))

    def real(self, slot: int) -> dict[str, Any]:
        health, reason, since = self.healths.get(slot, (Health.UNKNOWN, "", 0))
        return {"id": bytes([slot]) * 16, "health": int(health), "health_since_ms": since, "reason": reason}

    def failures(self, real: int) -> tuple[int, int, int]:
        return self.counters.get(real, (0, 0, 0))

    def clear_failures(self, real: int) -> None:
        _, last, error = self.failures(real)
        self.counters[real] = (0, last, error)

    def fail(self, real: int, error: int = 111) -> None:
        count, last, _ = self.failures(real)
        self.counters[real] = (count + 1, max(now_ms(), last + 1), error)


class Bench:
    """A runner over ``reals`` real servers of one service, on listeners that can be closed."""

    def __init__(self, reals: int, table: FakeTable | None = None, prober: Prober | None = None, **settings: Any):
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(reals)]
        self.table = table or FakeTable()
        self.results = ProbeResults.create(8)
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.messages: list[dict[str, Any]] = []
        base = {"interval_ms": 20, "timeout_ms": 2_000, "type": ProbeType.CONNECT, "all_down_grace_ms": 0}
        self.checks = [
            CheckedReal(
                slot, 5, "Symphony", f"S{slot}", ProbeSpec(address="127.0.0.1", port=port, **{**base, **settings})
            )
            for slot, port in enumerate(listener.getsockname()[1] for listener in self.listeners)
        ]
        extra = {} if prober is None else {"prober": prober}
        self.runner = Runner(
            self.checks, self.table, self.results, self.wake, self.messages.append, chance=random.Random(1), **extra
        )

    def health(self, real: int) -> Health:
        return self.table.healths.get(real, (Health.UNKNOWN, "", 0))[0]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["event"] == event]

    def fail(self, real: int, error: int = 111) -> None:
        self.table.fail(real, error)
        os.eventfd_write(self.wake, 1)

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10 * TIMEOUT_SCALE):
            while not condition():
                await asyncio.sleep(0.001)

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.results.close()
        os.close(self.wake)


@asynccontextmanager
async def bench(reals: int, **options: Any) -> AsyncIterator[Bench]:
    made = Bench(reals, **options)
    made.runner.start()
    try:
        yield made
    finally:
        await made.runner.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        made.close()


def test_first_verdicts_then_one_message() -> None:
    async def run() -> None:
        async with bench(3, interval_ms=60_000) as it:
            it.listeners[1].close()
            await it.wait(lambda: bool(it.events("verdicts")))
            assert [it.health(real) for real in range(3)] == [Health.UP, Health.DOWN, Health.UP]
            assert len(it.events("verdicts")) == 1
            told = {message["real"]: message for message in it.events("health")}
            assert told[0] == {
                "event": "health",
                "level": "info",
                "service": 5,
                "real": 0,
                "from": "unknown",
                "to": "up",
                "message": "Symphony: S0 is up: connected",
            }
            assert (told[1]["to"], told[1]["level"]) == ("down", "warning")
            assert "Connection refused" in told[1]["message"]
            assert it.results.last(0)[0].reason == "connected"
            assert it.results.last(0)[0].ok

    asyncio.run(run())


def test_nothing_to_probe_is_ready_at_once() -> None:
    async def run() -> None:
        async with bench(0) as it:
            assert it.messages == [{"event": "verdicts"}]
        async with bench(2, type=ProbeType.NONE) as it:
            assert {it.health(0), it.health(1)} == {Health.UP}
            assert it.messages == [{"event": "verdicts"}]

    asyncio.run(run())


def test_down_and_up_again_with_few_writes() -> None:
    async def run() -> None:
        async with bench(2) as it:
            await it.wait(lambda: len(it.results.last(0)) >= 6)
            assert len(it.table.writes) == 2  # one verdict each, nothing while nothing changes
            port = it.checks[0].spec.port
            it.listeners[0].close()
            await it.wait(lambda: it.health(0) is Health.DOWN)
            it.listeners[0] = socket.create_server(("127.0.0.1", port))
            await it.wait(lambda: it.health(0) is Health.UP)
            words = [(m["from"], m["to"]) for m in it.events("health") if m["real"] == 0]
            assert words == [("unknown", "up"), ("up", "down"), ("down", "up")]
            assert it.health(1) is Health.UP

    asyncio.run(run())


def test_failed_connect_takes_a_refusing_server_down_before_the_next_probe() -> None:
    async def run() -> None:
        async with bench(2, interval_ms=600_000) as it:
            await it.wait(lambda: bool(it.events("verdicts")))
            it.listeners[0].close()
            it.fail(0)
            await it.wait(lambda: it.health(0) is Health.DOWN)  # long before the interval is over
            reasons = [result.reason for result in it.results.last(0)]
            assert "Connection refused" in reasons[0]
            assert reasons[1] == "connects of clients fail: Connection refused"
            assert it.health(1) is Health.UP

    asyncio.run(run())


def test_a_probe_that_passes_clears_the_server_of_failed_connects() -> None:
    async def run() -> None:
        async with bench(1, interval_ms=600_000) as it:
            await it.wait(lambda: bool(it.events("verdicts")))
            it.fail(0)
            await it.wait(lambda: it.table.failures(0)[0] == 0)
            assert it.health(0) is Health.UP
            assert [result.ok for result in it.results.last(0)] == [True, False, True]

    asyncio.run(run())


def test_many_failed_connects_ask_for_few_probes() -> None:
    async def run() -> None:
        async with bench(1, interval_ms=600_000, fall=100) as it:
            await it.wait(lambda: bool(it.events("verdicts")))
            began = now_ms()
            for _ in range(150):
                it.fail(0)
                await asyncio.sleep(0.001)
            await it.wait(lambda: it.table.failures(0)[0] == 0)
            probes = [result for result in it.results.last(0) if result.ok]
            assert 2 < len(probes) <= 4 + (now_ms() - began) / 100

    asyncio.run(run())


def test_unprobed_servers_are_tried_again_after_an_interval() -> None:
    async def run() -> None:
        async with bench(1, type=ProbeType.NONE) as it:
            it.fail(0)
            it.fail(0)
            await it.wait(lambda: it.table.failures(0)[0] == 0)
            assert it.health(0) is Health.UP
            assert len(it.table.writes) == 1

    asyncio.run(run())


def test_a_new_process_adopts_what_stands() -> None:
    async def run() -> None:
        table = FakeTable()
        table.set_health(0, Health.UP, "connected")
        table.set_health(1, Health.DOWN, "connect to 10.0.0.1:1: Connection refused")
        table.fail(0)
        table.writes.clear()
        async with bench(2, table=table, interval_ms=30, rise=3) as it:
            assert it.messages == [{"event": "verdicts"}]
            os.eventfd_write(it.wake, 1)  # old failures are old news
            await it.wait(lambda: it.health(1) is Health.UP)
            assert [write[0] for write in table.writes] == [1, 1, 1]
            assert [m["to"] for m in it.events("health")] == ["up"]

    asyncio.run(run())


def test_all_down_is_said_and_ends() -> None:
    async def run() -> None:
        async with bench(3, interval_ms=30, timeout_ms=500, all_down_grace_ms=int(300 * TIMEOUT_SCALE)) as it:
            await it.wait(lambda: bool(it.events("verdicts")))
            for listener in it.listeners:
                listener.close()
            loud = lambda: [m["message"] for m in it.events("health") if "real" not in m]  # noqa: E731
            await it.wait(lambda: len(loud()) == 1)
            assert "Symphony: ALL servers that were up fail" in loud()[0]
            assert {it.health(real) for real in range(3)} == {Health.UP}
            await it.wait(lambda: {it.health(real) for real in range(3)} == {Health.DOWN})
            assert "grace is over" in loud()[1]

    asyncio.run(run())


class Odd(Prober):
    """Answers from a list, then passes."""

    def __init__(self, answers: list[ProbeResult | Exception]) -> None:
        super().__init__()
        self.answers = answers

    async def probe(self, spec: ProbeSpec) -> ProbeResult:
        answer = self.answers.pop(0) if self.answers else ProbeResult(True, 0, "fine")
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_probes_that_cannot_be_made_do_not_count_and_bugs_do_not_end_the_probing() -> None:
    local = ProbeResult(False, 0, "probe could not be made: socket: Too many open files", is_local=True)
    answers: list[ProbeResult | Exception] = [ProbeResult(True, 0, "fine"), local, local, local, RuntimeError("bug")]

    async def run() -> None:
        async with bench(1, prober=Odd(answers)) as it:
            await it.wait(lambda: len(it.results.last(0)) >= 7)
            assert [write[1] for write in it.table.writes] == [Health.UP]
            loud = [m["message"] for m in it.events("health") if m["level"] == "warning"]
            assert loud == ["Symphony: S0: probe could not be made: socket: Too many open files"]
            assert "internal error, RuntimeError: bug" in [result.reason for result in it.results.last(0)]

    asyncio.run(run())


def test_flapping_is_held() -> None:
    answers: list[ProbeResult | Exception] = [ProbeResult(True, 0, "up")]
    answers += [ProbeResult(False, 0, "bad"), ProbeResult(True, 0, "good")] * 5

    async def run() -> None:
        flap = FlapSpec(threshold=3, window_ms=600_000, hold_ms=600_000, max_hold_ms=600_000)
        table = FakeTable()
        table.set_health(0, Health.UP, "another server")
        table.writes.clear()
        async with bench(2, table=table, prober=Odd([]), interval_ms=5, rise=1, fall=1, flap=flap) as it:
            spec = it.checks[1].spec

            async def probe(asked: ProbeSpec) -> ProbeResult:
                fails = (
                    asked is spec and answers and isinstance(answer := answers.pop(0), ProbeResult) and not answer.ok
                )
                return ProbeResult(not fails, 0, "bad" if fails else "good")

            it.runner.prober.probe = probe  # type: ignore[method-assign]
            await it.wait(lambda: not answers and "held down until stable" in table.healths[1][1])
            assert it.health(1) is Health.DOWN

    asyncio.run(run())


@pytest.mark.parametrize(
    ("before", "now", "count"),
    [
        ((0, 0, 0), (0, 0, 0), 0),
        ((0, 0, 0), (1, 5, 111), 1),
        ((1, 5, 111), (4, 9, 111), 3),
        ((4, 9, 111), (2, 12, 111), 2),
        ((4, 9, 111), (4, 12, 111), 4),
        ((4, 9, 111), (0, 9, 111), 0),
        ((4, 9, 111), (2, 9, 111), 0),
        ((0, 0, 0), (1, 5, 24), 0),
        ((0, 0, 0), (1, 5, -99), 0),
        ((0, 0, 0), (1, 5, -111), 1),
    ],
)
def test_new_failures(before: tuple[int, int, int], now: tuple[int, int, int], count: int) -> None:
    found = new_failures(before, now)
    assert (found.count if found else 0) == count
    if found:
        assert found.reason == "connects of clients fail: Connection refused"


def test_outbox_keeps_the_order_while_the_channel_is_full() -> None:
    sent: list[int] = []
    room = [0]

    def send_now(message: dict[str, Any]) -> bool:
        if not room[0]:
            return False
        room[0] -= 1
        sent.append(message["n"])
        return True

    outbox = Outbox(send_now)
    for number in range(4):
        outbox.put({"n": number})
    room[0] = 3
    assert not outbox.flush()
    room[0] = 9
    outbox.put({"n": 4})
    assert sent == [0, 1, 2, 3, 4]
    outbox.close()
    outbox.put({"n": 5})
    assert sent[-1] == 4
