"""Plain TCP servers that wait for a client's end, then send numbers for ever.  Arguments: a port, the addresses."""

from __future__ import annotations

import asyncio
import sys


async def count_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read()
        for number in range(1_000_000):
            writer.write(b"%d\n" % number)
            await writer.drain()
            await asyncio.sleep(0.005)
    except OSError:
        pass
    finally:
        writer.close()


async def main(port: int, addresses: list[str]) -> None:
    servers = [await asyncio.start_server(count_on, address, port, backlog=1000) for address in addresses]
    print("READY", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
