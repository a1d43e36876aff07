"""Many clients, each with an address of its own: connect over TLS again and again, and note what came of it.

Arguments: a file with the CA's certificate, address, port, number of clients, seconds between two
connections of one client, number of connections that are held.  Says READY when every client has
been served once.  A line on stdin ends it; then it prints all it has noted as JSON.  Times are CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import sys
import time
from contextlib import suppress
from typing import Any

CONNECT_S = 0.1  # a LAN answers in less; then the client tries again, as a browser's user would
HANDSHAKE_S = 0.6
PATIENCE_S = 30.0  # for everybody to be served again


class Client:
    """One address."""

    def __init__(self, source: str, target: tuple[str, int], context: ssl.SSLContext) -> None:
        self.source = source
        self._target = target
        self._context = context
        self.served: list[tuple[float, float, int]] = []  # begun, served, by which server
        self.failed: list[tuple[float, float, str]] = []

    async def live(self, every: float, first: asyncio.Semaphore) -> None:
        async with first:
            while not self.served:
                await self.once()
        while True:
            # Spread, so that at any moment somebody is about to connect: a gap is seen as long as it is.
            pause = every * random.uniform(0.5, 1.5)
            await asyncio.sleep(pause if self.served[-1][1] > self._last_failure() else 0.005)
            await self.once()

    def _last_failure(self) -> float:
        return self.failed[-1][1] if self.failed else 0.0

    async def once(self) -> None:
        begun = time.monotonic()
        try:
            reader, writer = await self.connect()
            try:
                async with asyncio.timeout(HANDSHAKE_S):
                    number = int(await reader.readline())
                self.served.append((begun, time.monotonic(), number))
            finally:
                writer.transport.abort()
        except (OSError, ssl.SSLError, TimeoutError, ValueError) as error:
            self.failed.append((begun, time.monotonic(), type(error).__name__))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((self.source, 0))
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, self._target)
            async with asyncio.timeout(HANDSHAKE_S):
                return await asyncio.open_connection(sock=sock, ssl=self._context, server_hostname="symphony.test")
        except BaseException:
            sock.close()
            raise

    async def hold(self, notes: dict[str, Any]) -> None:
        """One long connection that says something every 50 ms."""
        while True:
            with suppress(OSError, ssl.SSLError, TimeoutError):
                reader, writer = await self.connect()
                break
            await asyncio.sleep(0.05)
        try:
            await reader.readline()
            notes["held"] += 1
            while True:
                writer.write(b"x\n")
                if not await asyncio.wait_for(reader.readline(), 5):
                    break
                await asyncio.sleep(0.05)
        except (OSError, ssl.SSLError, TimeoutError):
            pass
        notes["cut"].append(time.monotonic())
        writer.transport.abort()


async def main(pem: str, address: str, port: int, count: int, every: float, held: int) -> None:
    context = ssl.create_default_context(cafile=pem)
    clients = [Client(f"10.77.1.{number}", (address, port), context) for number in range(1, count + 1)]
    first = asyncio.Semaphore(10)
    notes: dict[str, Any] = {"cut": [], "held": 0}
    tasks = [asyncio.create_task(client.live(every, first)) for client in clients]
    tasks += [asyncio.create_task(client.hold(notes)) for client in clients[:held]]
    while not all(client.served for client in clients) or notes["held"] < held:
        await asyncio.sleep(0.01)
    print("READY", flush=True)
    words = (await asyncio.to_thread(sys.stdin.readline)).split()
    if words:
        after, deadline = float(words[1]), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not all(it.served[-1][0] >= after for it in clients):
            await asyncio.sleep(0.02)
    pending = set(tasks)
    while pending:  # again: one that had just got its answer does not notice that it was cancelled (Python 3.11)
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
    notes["clients"] = {it.source: {"served": it.served, "failed": it.failed} for it in clients}
    print(json.dumps(notes), flush=True)


if __name__ == "__main__":
    arguments = sys.argv
    asyncio.run(
        main(arguments[1], arguments[2], int(arguments[3]), int(arguments[4]), float(arguments[5]), int(arguments[6]))
    )
