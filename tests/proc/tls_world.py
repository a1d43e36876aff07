"""Three real HTTPS servers, and TLS clients with addresses of their own, as many at the same moment as a test wants."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import trustme
from harness import real_server, virtual_service
from servers import TcpServer, client_context, https_server
from waiting import scaled

NAMES = ("Symphony Server 1", "Symphony Server 2", "Symphony Server 3")


class TlsWorld:
    """HTTPS servers by name; each can be killed and revived on its port."""

    def __init__(self, ca: trustme.CA, names: Sequence[str] = NAMES) -> None:
        self._ca = ca
        self.context = client_context(ca)
        self.servers: dict[str, TcpServer] = {name: https_server(name, ca) for name in names}
        self._dead: dict[str, socket.socket] = {}

    def __enter__(self) -> TlsWorld:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for server in self.servers.values():
            server.stop()
        for holder in self._dead.values():
            holder.close()

    def reals(self, **settings: Any) -> list[dict[str, Any]]:
        """The servers as a virtual service lists them."""
        return [real_server(name, server.port, **settings) for name, server in self.servers.items()]

    def service(self, port: int, label: str = "Symphony", **settings: Any) -> dict[str, Any]:
        """A virtual service in front of all of them."""
        return virtual_service(port, self.reals(), label, **settings)

    def kill(self, name: str) -> None:
        """Cut its connections; connects are refused from now on, and nobody else can take the port."""
        server = self.servers.pop(name)
        server.stop()
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((server.address, server.port))
        self._dead[name] = holder

    def revive(self, name: str) -> None:
        """Back on the same port."""
        holder = self._dead.pop(name)
        port = holder.getsockname()[1]
        holder.close()
        self.servers[name] = https_server(name, self._ca, port=port)


class TlsClient:
    """One HTTPS connection, kept open between requests."""

    def __init__(self, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.source = source
        self._reader, self._writer = reader, writer

    @property
    def port(self) -> int:
        """The client's own port, as ``connections`` shows it."""
        return int(self._writer.get_extra_info("sockname")[1])

    async def ask(self, path: str = "/") -> str:
        """The name of the server that answers."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(scaled(20)):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = (await self._reader.readexactly(length)).decode().rstrip("\n")
        return body.removesuffix(f" {path}")

    async def close(self) -> None:
        """Orderly, with close_notify; harmless when the other side was first."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass


async def connect_tls(port: int, context: ssl.SSLContext, source: str, address: str = "127.0.0.1") -> TlsClient:
    """A TLS client from a source address; all that are gathered send their SYN before any of them goes on."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    try:
        sock.setblocking(False)
        sock.bind((source, 0))
        await loop.sock_connect(sock, (address, port))
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise
    return TlsClient(source, reader, writer)


async def open_tls(port: int, context: ssl.SSLContext, sources: Iterable[str]) -> list[TlsClient]:
    """One open connection for each source listed, all connected at the same moment."""
    return list(await asyncio.gather(*(connect_tls(port, context, source) for source in sources)))


async def close_tls(clients: Iterable[TlsClient]) -> None:
    await asyncio.gather(*(client.close() for client in clients))


async def visit_tls(port: int, context: ssl.SSLContext, sources: Iterable[str]) -> dict[str, Counter[str]]:
    """Connect everybody at once, ask while all are open, leave; source -> servers that answered, with counts."""
    clients = await open_tls(port, context, sources)
    try:
        answers = await asyncio.gather(*(client.ask() for client in clients))
    finally:
        await close_tls(clients)
    met: dict[str, Counter[str]] = {}
    for client, answer in zip(clients, answers, strict=True):
        met.setdefault(client.source, Counter())[answer] += 1
    return met


def visit(port: int, context: ssl.SSLContext, sources: Iterable[str]) -> dict[str, Counter[str]]:
    """``visit_tls`` for tests that have no event loop."""
    return asyncio.run(visit_tls(port, context, sources))


def sources(count: int, network: int = 1) -> list[str]:
    """Client addresses 127.0.N.x: nobody else uses them."""
    assert count <= 250
    return [f"127.0.{network}.{host}" for host in range(1, count + 1)]


def homes(met: dict[str, Counter[str]]) -> dict[str, str]:
    """Source -> its one server; AssertionError naming every client that was split over servers."""
    split = {source: dict(servers) for source, servers in met.items() if len(servers) > 1}
    assert not split, f"{len(split)} of {len(met)} clients were split over servers: {split}"
    return {source: next(iter(servers)) for source, servers in met.items()}
