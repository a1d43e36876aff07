"""What holds for every request, before any handler: security headers, sizes of bodies, and how long they may take."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS: Final = "max-age=31536000"
SMALL: Final = 2 << 20  # a configuration of 1 MB, with room for its encoding in a form
LARGE: Final = 64 << 20  # a backup
LARGE_PLACES: Final = ("/lbadmin/maintenance/backup", "/api/v1/backups")
BODY_S: Final = 20.0  # for a small body; each further MB adds a second


class TooLarge(Exception):
    """More came than the place takes."""


class Headers:
    """The security headers on every answer; nothing of ours is kept by a cache unless it is static."""

    def __init__(self, app: ASGIApp, *, is_tls: bool) -> None:
        self._app = app
        self._is_tls = is_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if self._is_tls:
                    headers.setdefault("strict-transport-security", HSTS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_guarded if scope["type"] == "http" else send)


class Bodies:
    """Refuses bodies that are too large or too slow, before more of them is read than is allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = LARGE if scope["path"].startswith(LARGE_PLACES) else SMALL
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _refuse(413, f"This place takes at most {limit >> 20} MB.", scope, receive, send)
            return
        body = _Body(receive, limit)
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, body.receive, send_noted)
        except TooLarge:
            if not started:
                await _refuse(413, f"This place takes at most {limit >> 20} MB.", scope, receive, send)
        except TimeoutError:
            if started or not body.is_late:
                raise
            await _refuse(408, "The request came too slowly.", scope, receive, send)


class _Body:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._is_whole = False
        self.is_late = False
        self._deadline = asyncio.get_running_loop().time() + BODY_S

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()  # now it waits for the client to go away, as long as that takes
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self._deadline + self._size / 1e6):
                message = await self._receive()
        except TimeoutError:
            self.is_late = loop.time() >= self._deadline
            raise
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self._size > self._limit:
                raise TooLarge
        return message


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(text + "\n", status, {"connection": "close"})(scope, receive, send)
