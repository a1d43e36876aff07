"""Real servers for probes, and one probe of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from waiting import TIMEOUT_SCALE

from lbfast.health.outcome import ProbeResult
from lbfast.health.probes import Prober
from lbfast.health.spec import ProbeSpec, ProbeType

Handler = Callable[[socket.socket], None]


class Server:
    """Accepts in a thread and lets ``handler`` have each connection; remembers what it received."""

    def __init__(self, handler: Handler, family: int = socket.AF_INET) -> None:
        self._handler = handler
        address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((address, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self.errors: list[BaseException] = []
        self.peers: list[str] = []
        self.done = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(20)
            try:
                self._handler(sock)
            except (OSError, AssertionError) as error:
                self.errors.append(error)
        self.done.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        wrong = [error for error in self.errors if isinstance(error, AssertionError)]
        assert not wrong


@contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(handler: Handler, **options: Any) -> Server:
        servers.append(Server(handler, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def probe(kind: ProbeType, port: int, **settings: Any) -> ProbeResult:
    spec = ProbeSpec(
        type=kind, port=port, **{"address": "127.0.0.1", "timeout_ms": int(5_000 * TIMEOUT_SCALE), **settings}
    )

    async def run() -> ProbeResult:
        result = await Prober().probe(spec)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left
        return result

    return asyncio.run(run())


def head_of(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        if not data:
            break
        head += data
    return head


def answering(raw: bytes, seen: list[bytes] | None = None, wrap: ssl.SSLContext | None = None) -> Handler:
    def handle(sock: socket.socket) -> None:
        if wrap is not None:
            with wrap.wrap_socket(sock, server_side=True) as tls:
                answer(tls)
        else:
            answer(sock)

    def answer(sock: socket.socket) -> None:
        head = head_of(sock)
        if seen is not None:
            seen.append(head)
        sock.sendall(raw)
        if wrap is None:  # on a TLS socket it would end TLS as well
            sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""  # the probe leaves without a reset

    return handle


def page(body: bytes = b"ok", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
