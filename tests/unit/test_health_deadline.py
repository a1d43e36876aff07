"""A deadline that comes late because this process did not get to run is put off: the answer may lie unread."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from waiting import scaled

from lbfast.health.deadline import within

TIMEOUT_S, STALL_S = 0.2, 0.5


async def answer(then: Callable[[socket.socket], None], timeout: float = TIMEOUT_S) -> bytes:
    """What comes in time from a server that does something in the middle of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.call_later(timeout / 4, then, theirs)
        async with within(timeout):
            return await loop.sock_recv(ours, 100)


def test_an_answer_that_came_while_this_process_stood_still_counts() -> None:
    def stall(server: socket.socket) -> None:
        server.send(b"answer")
        time.sleep(STALL_S)

    assert asyncio.run(answer(stall)) == b"answer"


@pytest.mark.parametrize("stall_s", [0.0, STALL_S, 5 * STALL_S])
def test_silence_ends_all_the_same(stall_s: float) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(answer(lambda _: time.sleep(stall_s)))
    assert time.monotonic() - began >= TIMEOUT_S


def test_what_is_cancelled_is_cancelled() -> None:
    async def cancel() -> None:
        task = asyncio.create_task(answer(lambda _: None, 60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_nothing_is_left_behind() -> None:
    """Neither a timer nor a cancellation that comes later."""

    async def look() -> None:
        for _ in range(3):
            assert await answer(lambda server: server.close() or None) == b""
        await asyncio.sleep(2 * TIMEOUT_S)

    asyncio.run(look())


@pytest.mark.parametrize("turn_s", [0.03, 0.06, 0.1, 0.25])
def test_a_loop_that_is_late_all_the_time_still_ends(turn_s: float) -> None:
    """Every deadline there is late, and a silent server is silent all the same."""

    async def silence() -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            time.sleep(turn_s)
            loop.call_soon(work)

        loop.call_soon(work)
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(scaled(20)), within(TIMEOUT_S):
                await asyncio.Event().wait()
        assert loop.time() - began < scaled(10)

    asyncio.run(silence())
