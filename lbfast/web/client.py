"""The control socket for an event loop: what every page and the API ask lbfast by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from lbfast.control import protocol
from lbfast.control.client import ControlUnavailable
from lbfast.control.protocol import ControlError
from lbfast.web.said import said

__all__ = ["AsyncClient", "ControlError", "ControlUnavailable"]

MOST_ANSWER: Final = 256 << 20  # bytes of one answer: a table of 100,000 entries has about 30 MB


class AsyncClient:
    """One connection per call, so that a restart of control is never noticed between two calls."""

    def __init__(self, path: Path | None = None, timeout: float = 30.0) -> None:
        self.path = path or protocol.socket_path()
        self.timeout = timeout

    async def call(self, verb: str, by: str = "", timeout: float | None = None, **args: Any) -> Any:
        """The result of a verb, asked for by the person ``by``.  Arguments that are None are left out.

        ControlError when lbfast refuses, ControlUnavailable when it cannot be asked.
        """
        request = _request(verb, args, by)
        limit = timeout or self.timeout
        try:
            async with asyncio.timeout(limit), self._connect() as (reader, writer):
                writer.write(request)
                with suppress(ConnectionError):  # refused before reading: the answer says why
                    await writer.drain()
                return protocol.decode_answer(await _line(reader, verb))
        except TimeoutError:
            raise ControlUnavailable(
                said(
                    "lbfast did not answer %(verb)s within %(limit)s s; try again", verb=repr(verb), limit=f"{limit:g}"
                )
            ) from None
        except ConnectionError as error:
            raise ControlUnavailable(
                said("the connection to lbfast broke (%(why)s); try again", why=error.strerror)
            ) from None

    async def stream(self, verb: str, by: str = "", **args: Any) -> AsyncIterator[Any]:
        """The results of a verb that goes on answering; ends when lbfast closes the connection."""
        request = _request(verb, args, by)
        async with self._connect() as (reader, writer):
            writer.write(request)
            while True:
                try:
                    line = await reader.readline()
                except (ConnectionError, ValueError):
                    return
                if not line.endswith(b"\n"):
                    return
                yield protocol.decode_answer(line)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_unix_connection(protocol.check_path(self.path), limit=MOST_ANSWER)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            message = said(
                "lbfast's control process cannot be reached (%(why)s); it is probably restarting, try again", why=why
            )
            raise ControlUnavailable(message) from None
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def _request(verb: str, args: dict[str, Any], by: str) -> bytes:
    return protocol.encode_request(verb, {key: value for key, value in args.items() if value is not None}, by)


async def _line(reader: asyncio.StreamReader, verb: str) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ControlUnavailable(
            said("lbfast closed the connection before it answered %(verb)s; try again", verb=repr(verb))
        )
    return line
