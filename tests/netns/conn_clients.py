"""TLS clients that talk without a break through a takeover, idle ones and half-closed ones; what each has seen.

Arguments: the CA's certificate, address, port, number of talking, idle and half-closed connections.  Says READY when
all are connected.  A line on stdin ends it; then it prints its notes as JSON.

- talking: numbered lines, echoed by the server; every line must come back, in order, unharmed.
- idle: says nothing until the end, then one line must come back.
- half-closed: plain TCP to port + 1, has said all and shut its direction; the server sends lines until the end.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time

LINE = 4000
PATIENCE_S = 30.0


class Notes:
    """What is printed at the end."""

    def __init__(self) -> None:
        self.cut: list[str] = []
        self.damaged: list[str] = []
        self.pauses: list[float] = []
        self.lines = 0
        self.late = 0  # connections that had something come back after the end was asked for


async def talk(
    notes: Notes, ends: asyncio.Event, target: tuple[str, int], context: ssl.SSLContext, up: asyncio.Event
) -> None:
    reader, writer = await asyncio.open_connection(*target, ssl=context, server_hostname="symphony.test", limit=1 << 20)
    await reader.readline()
    up.set()
    last, number, worst = time.monotonic(), 0, 0.0
    try:
        while True:
            ending = ends.is_set()
            for ahead in range(4):
                writer.write(line_of(number + ahead))
            for _ in range(4):
                async with asyncio.timeout(PATIENCE_S):
                    found = await reader.readline()
                if not found:
                    raise ConnectionError("closed")
                now = time.monotonic()
                worst, last = max(worst, now - last), now
                if found != line_of(number):
                    notes.damaged.append(f"line {number}")
                number += 1
            await asyncio.sleep(0.005)
            if ending:
                break
        notes.late += 1
    except (OSError, ssl.SSLError, TimeoutError) as error:
        notes.cut.append(f"talking: {type(error).__name__} {error}")
    notes.pauses.append(worst)
    notes.lines += number
    writer.transport.abort()


def line_of(number: int) -> bytes:
    return (b"%d " % number * LINE)[: LINE - 1] + b"\n"


async def idle(
    notes: Notes, ends: asyncio.Event, target: tuple[str, int], context: ssl.SSLContext, up: asyncio.Event
) -> None:
    reader, writer = await asyncio.open_connection(*target, ssl=context, server_hostname="symphony.test")
    await reader.readline()
    up.set()
    await ends.wait()
    try:
        writer.write(b"still there\n")
        async with asyncio.timeout(PATIENCE_S):
            if await reader.readline() != b"still there\n":
                raise ConnectionError("closed")
        notes.late += 1
    except (OSError, ssl.SSLError, TimeoutError) as error:
        notes.cut.append(f"idle: {type(error).__name__} {error}")
    writer.transport.abort()


async def half(notes: Notes, ends: asyncio.Event, target: tuple[str, int], up: asyncio.Event) -> None:
    """The server sends a number every few milliseconds from the client's end on, until it is reset."""
    reader, writer = await asyncio.open_connection(*target)
    writer.write(b"all\n")
    writer.write_eof()
    number = 0
    try:
        while True:
            ending = ends.is_set()
            async with asyncio.timeout(PATIENCE_S):
                found = await reader.readline()
            if found != b"%d\n" % number:
                raise ConnectionError(f"{found!r} in place of {number}")
            number += 1
            if number == 3:
                up.set()
            if ending:
                break
        notes.late += 1
    except (OSError, TimeoutError) as error:
        notes.cut.append(f"half-closed: {type(error).__name__} {error}")
    writer.transport.abort()


async def main(ca: str, host: str, port: int, talking: int, idling: int, halves: int) -> None:
    context = ssl.create_default_context(cafile=ca)
    notes, ends = Notes(), asyncio.Event()
    ups: list[asyncio.Event] = []
    tasks = []
    for count, make in ((talking, talk), (idling, idle)):
        for _ in range(count):
            ups.append(asyncio.Event())
            tasks.append(asyncio.create_task(make(notes, ends, (host, port), context, ups[-1])))
    for _ in range(halves):
        ups.append(asyncio.Event())
        tasks.append(asyncio.create_task(half(notes, ends, (host, port + 1), ups[-1])))
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(up.wait() for up in ups))
    print("READY", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ends.set()
    await asyncio.gather(*tasks)
    notes.pauses.sort()
    print(json.dumps(vars(notes)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
