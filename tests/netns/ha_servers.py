"""Three TLS servers in one process: each says its number to whoever comes, then echoes lines.

Arguments: a file with key and certificate, a port, the addresses.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def main(pem: str, port: int, addresses: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    servers = [
        await asyncio.start_server(serve_as(number), address, port, ssl=context, backlog=4000)
        for number, address in enumerate(addresses, 1)
    ]
    print("READY", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def serve_as(number: int) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"%d\n" % number)
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    return serve


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
