"""The ha process's unix socket: control asks here; the framing is the control protocol's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lbfast.control.protocol import MAX_REQUEST, ControlError, decode_request, encode_error, encode_result

SOCKET_NAME = "ha.sock"
Handler = Callable[..., Awaitable[dict[str, Any]]]


class Door:
    """Answers the verbs it is given, each connection in order."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler], owner: int | None = None) -> None:
        self._path = path
        self._handlers = handlers
        self._owner = owner
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; only the user that runs lbfast may knock."""
        self._path.unlink(missing_ok=True)  # a process before this one was killed
        self._server = await asyncio.start_unix_server(self._serve, path=self._path, limit=2 * MAX_REQUEST)
        self._path.chmod(0o600)
        if self._owner is not None:
            os.chown(self._path, self._owner, -1)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                writer.write(await self._answer(line))
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # whoever asked is gone, or we stop
        finally:
            self._tasks.discard(task)
            with suppress(OSError):
                writer.close()

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = decode_request(line)
            handler = self._handlers.get(request.verb)
            if handler is None:
                raise ControlError("unknown_verb", f"the ha process has no verb {request.verb[:80]!r}")
            return encode_result(await handler(**request.args))
        except ControlError as error:
            return encode_error(error.code, error.message)
        except TypeError as error:
            return encode_error("bad_argument", str(error))
