"""Clients that connect once each, at a steady pace, until a line on stdin; then what they were told, as JSON.

Arguments: a file with the CA's certificate, address, port, number of clients, clients a second.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/netns"))

from ha_clients import Client


async def main(pem: str, address: str, port: int, count: int, pace: float) -> None:
    context = ssl.create_default_context(cafile=pem)
    clients = [
        Client(f"10.77.{1 + number // 250}.{1 + number % 250}", (address, port), context) for number in range(count)
    ]
    print("READY", flush=True)
    ending = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    tasks = set()
    for client in clients:
        if ending.done():
            break
        tasks.add(asyncio.create_task(client.once()))
        await asyncio.sleep(1 / pace)
    await ending
    await asyncio.wait(tasks, timeout=2)
    # The moment of the answer, and by which server.
    print(json.dumps({it.source: it.served[0][1:] for it in clients if it.served}), flush=True)


if __name__ == "__main__":
    pem, address, port, count, pace = sys.argv[1:]
    asyncio.run(main(pem, address, int(port), int(count), float(pace)))
