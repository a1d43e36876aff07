"""The web process: from fork to exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sqlite3
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from lbfast.control.certificate_file import certificate_fault
from lbfast.model.addresses import is_wildcard, join_address
from lbfast.model.appliance import WebSettings
from lbfast.web.app import build_app
from lbfast.web.late import import_all
from lbfast.web.live import Live
from lbfast.web.render import read_templates
from lbfast.web.server import make_server
from lbfast.web.state import WebState, open_state
from lbfast.web.static_files import read_files
from lbfast.web.store import folder
from lbfast.web.tls import certificate_files, describe, make_context

EXIT_FAILED = 1


class ChannelFace(Protocol):
    """The child's end of the channel to the supervisor."""

    def fileno(self) -> int: ...
    def send(self, message: Mapping[str, object], fds: Sequence[int] = (), /) -> None: ...
    def receive_now(self) -> dict[str, Any] | None: ...


def prepare() -> None:
    """Read and import all that will be needed, before rights are given up: the tree may be closed to the new user."""
    read_templates()
    read_files()
    make_server(_nothing, None)
    import_all()


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application to try the server with."""


def run_web(settings: WebSettings, fd: int, channel: ChannelFace) -> int:
    """Serve on the listening socket ``fd`` until told to stop.  Without a supervisor it goes on."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(_serve(settings, fd, channel))
    except (OSError, ValueError, sqlite3.Error) as error:
        print(f"lbfast web: cannot start: {error}", file=sys.stderr, flush=True)
        return EXIT_FAILED


async def _serve(settings: WebSettings, fd: int, channel: ChannelFace) -> int:
    state = open_state(settings, folder())
    context = _take_certificate(state) if settings.tls else None
    if context is not None:
        state.reload_certificate = lambda: _reload(state, context)
    state.live = Live(state.client, state.stopping)
    server = make_server(build_app(state), context)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        state.stopping.set()
        server.should_exit = True

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_reader(channel.fileno(), _hear, loop, channel, stop)
    for problem in state.languages.problems:
        print(f"lbfast web: a language cannot be used: {problem}", file=sys.stderr, flush=True)
    _show_setup(state)
    _tell_ready(channel)
    try:
        await server.serve([socket.socket(fileno=fd)])
    finally:
        state.stopping.set()
        await state.live.stop()
        state.close()
    return 0


def _take_certificate(state: WebState) -> ssl.SSLContext:
    if fault := certificate_fault(state.settings):
        raise ValueError(f"[web] {fault.key}: found {fault.found}, expected {fault.expected}")
    certificate, key = certificate_files(state.settings, state.folder)
    state.certificate = describe(certificate)
    return make_context(certificate, key)


def _reload(state: WebState, context: ssl.SSLContext) -> None:
    """New connections get the certificate that is on disk now; those that stand keep theirs."""
    certificate, key = certificate_files(state.settings, state.folder)
    context.load_cert_chain(certificate, key)
    state.certificate = describe(certificate)


def _show_setup(state: WebState) -> None:
    if state.users.needs_setup():
        code = state.setup.ensure()
        print(f"SETUP {address_of(state.settings)}setup?code={code}", flush=True)


def address_of(settings: WebSettings) -> str:
    """The address of the first page, as it is reached from this machine."""
    host = settings.address
    if is_wildcard(host):
        host = socket.gethostname() or "localhost"
    place = join_address(host, settings.port_number)
    return f"{'https' if settings.tls else 'http'}://{place}/lbadmin/"


def _tell_ready(channel: ChannelFace) -> None:
    try:
        channel.send({"event": "ready"})
    except OSError:
        pass  # the supervisor is gone; browsers are served all the same


def _hear(loop: asyncio.AbstractEventLoop, channel: ChannelFace, stop: Any) -> None:
    try:
        message = channel.receive_now()
    except BlockingIOError:
        return
    if message is None:
        loop.remove_reader(channel.fileno())
    elif message.get("do") == "stop":
        stop()
