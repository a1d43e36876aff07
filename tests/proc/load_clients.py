"""Closed-loop clients that count every failure: connect, read the server's name, echo a line, leave, again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import TracebackType

from waiting import scaled, wait_for


@dataclass(frozen=True)
class Failure:
    """What went wrong for one connection, and which it was."""

    phase: str  # "connect": never had a connection; "talk": had one and lost it
    error: str
    source: str
    port: int  # the client's own


@dataclass
class Load:
    """Runs in a thread of its own between ``with`` and its end; each client has its own address."""

    port: int
    clients: list[str]
    address: str = "127.0.0.1"
    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    met: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # source -> servers
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(scaled(30))
        assert not self._thread.is_alive(), "a client waits for ever"

    def wait_more(self, count: int, timeout: float = 20.0) -> None:
        """Wait until so many more connections went well."""
        goal = self.done + count
        wait_for(lambda: self.done >= goal, timeout, f"{count} more connections that go well ({self.failures[-3:]})")

    @property
    def refused(self) -> list[Failure]:
        """Clients that never got a connection."""
        return [failure for failure in self.failures if failure.phase == "connect"]

    @property
    def cut(self) -> list[Failure]:
        """Clients whose connection was lost."""
        return [failure for failure in self.failures if failure.phase == "talk"]

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(source) for source in self.clients))

    async def _client(self, source: str) -> None:
        while not self._stop.is_set():
            sock = socket.socket()
            try:
                await self._once(sock, source)
            finally:
                sock.close()

    async def _once(self, sock: socket.socket, source: str) -> None:
        loop, phase, port = asyncio.get_running_loop(), "connect", 0
        sock.setblocking(False)
        sock.bind((source, 0))
        port = sock.getsockname()[1]
        try:
            async with asyncio.timeout(scaled(15)):
                await loop.sock_connect(sock, (self.address, self.port))
                phase = "talk"
                name = await self._line(sock)
                await loop.sock_sendall(sock, b"hello\n")
                assert await self._line(sock) == b"hello\n"
        except (OSError, EOFError, TimeoutError) as error:
            self.failures.append(Failure(phase, repr(error), source, port))
            return
        self.done += 1
        self.met[source][name.decode().strip()] += 1

    async def _line(self, sock: socket.socket) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            data = await asyncio.get_running_loop().sock_recv(sock, 4096)
            if not data:
                raise EOFError("ended early")
            line += data
        return line
