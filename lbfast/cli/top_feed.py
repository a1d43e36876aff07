"""The control socket for `top`: the same protocol as control.client, for an asyncio program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lbfast.control import protocol
from lbfast.control.client import ControlUnavailable

_LONGEST_LINE = 64 * 1024 * 1024  # an overview of thousands of real servers is one line


class Feed:
    """One connection per call; ControlError when refused, ControlUnavailable when nobody answers."""

    def __init__(self, timeout: float = 5.0) -> None:
        self.path = protocol.socket_path()
        self.timeout = timeout

    async def call(self, verb: str, **args: Any) -> Any:
        """The result of a verb."""
        try:
            async with asyncio.timeout(self.timeout), self._asked(verb, args) as reader:
                line = await reader.readline()
        except TimeoutError:
            raise ControlUnavailable(f"no answer within {self.timeout:g} s from {self.path}") from None
        if not line.endswith(b"\n"):
            raise ControlUnavailable(f"{self.path}: the connection was closed before the answer")
        return protocol.decode_answer(line)

    async def stream(self, verb: str, **args: Any) -> AsyncIterator[Any]:
        """The results of a verb that goes on, until lbfast ends it."""
        async with self._asked(verb, args) as reader:
            async for line in reader:
                if line.endswith(b"\n"):
                    yield protocol.decode_answer(line)

    @asynccontextmanager
    async def _asked(self, verb: str, args: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
        try:
            reader, writer = await asyncio.open_unix_connection(protocol.check_path(self.path), limit=_LONGEST_LINE)
        except (OSError, ValueError) as error:
            raise ControlUnavailable(f"nobody answers on {self.path}: {error}") from None
        try:
            writer.write(
                protocol.encode_request(verb, {key: value for key, value in args.items() if value is not None})
            )
            await writer.drain()
            yield reader
        except ConnectionError as error:
            raise ControlUnavailable(f"{self.path}: the connection broke: {error}") from None
        finally:
            writer.close()
