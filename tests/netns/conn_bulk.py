"""Bulk transfers with digests, through a takeover: slow readers of large answers, and fast uploads to a slow server.

Arguments: `serve` PORT ADDRESS..., or `clients` ADDRESS PORT DOWN UP.  Says READY when all have begun.  A line on stdin
ends the clients: each transfer is brought to its end, and its digest compared; then the notes are printed as JSON.

- down: the client asks by `d`; random bytes come, more when it has shut its direction, then their SHA-256.
- up: the client asks by `u`, sends random bytes, at its end more and a SHA-256; the server says `ok` or `damaged`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from contextlib import suppress

BLOCK = 1 << 16
AHEAD, MORE = 96, 16  # blocks at once, far more than is taken by the other end; and when the end is asked for
DIGEST = 32
SLOW_READ, SLOW_S = 1 << 14, 0.02  # of whoever is slow: queues and pipes in between are full
SLOW_FOR_S = 8.0  # ... of a server: what is in between must come through before the test ends
PATIENCE_S = 60.0


class Blocks:
    """Random bytes, ever different, without much work; and the digest of what was given out."""

    def __init__(self, seed: int) -> None:
        self._bytes = random.Random(seed).randbytes(2 * BLOCK)
        self._count = 0
        self.digest = hashlib.sha256()

    def next(self) -> bytes:
        at = self._count * 7919 % BLOCK
        self._count += 1
        block = self._count.to_bytes(8, "big") + self._bytes[at : at + BLOCK]
        self.digest.update(block)
        return block


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        if await reader.readexactly(1) == b"d":
            await send_down(reader, writer)
        else:
            hurry = asyncio.Event()
            asyncio.get_running_loop().call_later(SLOW_FOR_S, hurry.set)
            writer.write(b"ok" if await receive(reader, SLOW_S, hurry) else b"damaged")
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def send_down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    blocks, end = Blocks(1), asyncio.create_task(reader.read())
    try:
        await send_blocks(writer, blocks, AHEAD)
        await end
        await send_blocks(writer, blocks, MORE)
        writer.write(blocks.digest.digest())
    finally:
        end.cancel()


async def send_blocks(writer: asyncio.StreamWriter, blocks: Blocks, count: int) -> None:
    for _ in range(count):
        writer.write(blocks.next())
        await writer.drain()


async def receive(reader: asyncio.StreamReader, pause_s: float, hurry: asyncio.Event) -> bool:
    """Until the end; whether the last bytes are the digest of all before."""
    digest, tail = hashlib.sha256(), b""
    while data := await reader.read(SLOW_READ):
        tail += data
        digest.update(tail[:-DIGEST])
        tail = tail[-DIGEST:]
        if not hurry.is_set():
            await asyncio.sleep(pause_s)
    return tail == digest.digest()


class Notes:
    """What is printed at the end."""

    def __init__(self) -> None:
        self.whole = 0
        self.damaged: list[str] = []
        self.cut: list[str] = []

    def note(self, name: str, is_whole: bool) -> None:
        if is_whole:
            self.whole += 1
        else:
            self.damaged.append(name)


async def down(notes: Notes, ends: asyncio.Event, target: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*target, limit=BLOCK)
    writer.write(b"d")
    stopper = asyncio.create_task(stop(ends, writer))
    try:
        async with asyncio.timeout(PATIENCE_S):
            notes.note("down", await receive(reader, SLOW_S, ends))
    except (OSError, TimeoutError) as error:
        notes.cut.append(f"down: {type(error).__name__} {error}")
    stopper.cancel()
    writer.transport.abort()


async def stop(ends: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    await ends.wait()
    with suppress(OSError):
        writer.write_eof()


async def up(notes: Notes, ends: asyncio.Event, target: tuple[str, int], seed: int) -> None:
    reader, writer = await asyncio.open_connection(*target)
    blocks = Blocks(seed)
    try:
        writer.write(b"u")
        async with asyncio.timeout(PATIENCE_S):
            await send_blocks(writer, blocks, AHEAD)
            await ends.wait()
            await send_blocks(writer, blocks, MORE)
            writer.write(blocks.digest.digest())
            writer.write_eof()
            notes.note("up", await reader.read() == b"ok")
    except (OSError, TimeoutError) as error:
        notes.cut.append(f"up: {type(error).__name__} {error}")
    writer.transport.abort()


async def serve(port: int, addresses: list[str]) -> None:
    servers = [await asyncio.start_server(serve_one, address, port, limit=BLOCK) for address in addresses]
    print("READY", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def clients(host: str, port: int, downs: int, ups: int) -> None:
    notes, ends = Notes(), asyncio.Event()
    jobs = [down(notes, ends, (host, port)) for _ in range(downs)]
    jobs += [up(notes, ends, (host, port), seed) for seed in range(ups)]
    tasks = [asyncio.create_task(job) for job in jobs]
    await asyncio.sleep(1)  # a load, no condition: whatever is between the ends fills up meanwhile
    print("READY", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ends.set()
    await asyncio.gather(*tasks)
    print(json.dumps(vars(notes)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2]), sys.argv[3:]))
    else:
        asyncio.run(clients(sys.argv[2], *map(int, sys.argv[3:])))
