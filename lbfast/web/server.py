"""uvicorn on a socket that is open already; a client that sends its request's head too slowly is let go."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0  # from the connection, handshake included, to the end of the first head
IDLE_S: Final = 30.0
MOST_CONNECTIONS: Final = 400
LARGEST_HEAD: Final = 32 * 1024


class PatientProtocol(H11Protocol):
    """H11 with a deadline for the first head; uvicorn itself has one only between requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(HEAD_S, self._give_up)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:
            self._deadline.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


class Server(uvicorn.Server):
    """Without signal handlers of its own: the process has its own ideas about them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp, context: ssl.SSLContext | None) -> Server:
    """Serves ``app``, over TLS with a context."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        backlog=256,
    )
    config.load()
    if context is not None:
        ready: Any = context
        config.ssl = ready
        config.ssl_certfile = "given"  # so that uvicorn calls its address https
    return Server(config)
