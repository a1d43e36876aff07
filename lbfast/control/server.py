"""The control socket: many clients at once, each answered in order, none able to stop the others."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from lbfast.control import protocol
from lbfast.control.access import Access, Right
from lbfast.control.engine import Caller, Engine
from lbfast.control.events import Follower
from lbfast.control.peer import caller_of
from lbfast.control.protocol import ControlError
from lbfast.control.socket_file import SocketFile
from lbfast.control.verbs import VERBS, Verb, find_verb

MOST_CLIENTS: Final = 256
MOST_LOOKERS: Final = 128  # of them: those that may only look leave room for those that may change
IDLE_S: Final = 60.0  # a client that asks nothing for so long is let go
WRITE_S: Final = 30.0  # a client that does not read its answer either; a follower may be as slow as it likes


class ControlServer:
    """Answers on one unix socket."""

    def __init__(self, engine: Engine, file: SocketFile, access: Access) -> None:
        self._engine = engine
        self._file = file
        self._access = access
        self._lookers = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; OSError when the place cannot be used, ValueError when another lbfast answers there."""
        sock = self._file.open()
        # limit bounds a request line
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=protocol.MAX_REQUEST)

    async def stop(self) -> None:
        """Close the socket and every client."""
        if self._server is not None:
            self._server.close()
        self._file.remove()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) > MOST_CLIENTS:
                message = f"{MOST_CLIENTS} clients are connected to the control socket; try again later"
                await _send(writer, protocol.encode_error("busy", message))
            else:
                await self._answer_peer(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client is gone or too slow, or we stop: nobody is left to be told
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _answer_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A stranger is told so at once and let go: it must not take the place of those who may."""
        caller = caller_of(writer.get_extra_info("socket"))
        right = self._access.right_of(caller)
        if right is Right.NOTHING:
            await _send(writer, protocol.encode_error("forbidden", self._access.refusal(caller)))
            return
        is_looker = right is Right.LOOK
        if is_looker and self._lookers >= MOST_LOOKERS:
            message = f"{MOST_LOOKERS} clients that may only look are connected to the control socket; try again later"
            await _send(writer, protocol.encode_error("busy", message))
            return
        self._lookers += is_looker
        try:
            await self._answer_all(caller, reader, writer)
        finally:
            self._lookers -= is_looker

    async def _answer_all(self, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
            except ValueError:  # the line is longer than the limit, and where it ends is not known
                message = f"a request has at most {protocol.MAX_REQUEST} bytes"
                await _send(writer, protocol.encode_error("bad_request", message))
                return
            if not line.endswith(b"\n"):
                return  # end of file; half a request is none
            if line.strip():
                await self._answer(line, caller, reader, writer)

    async def _answer(
        self, line: bytes, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            request = protocol.decode_request(line)
            verb = find_verb(request.verb)
            self._access.check(caller, verb.needed, request.verb)
            caller = self._access.for_whom(caller, request.by)
            if verb is VERBS["events"] and request.args.get("follow") is True:
                await self._follow(verb, request.args, caller, reader, writer)
                return
            answer = protocol.encode_result(await self._run(verb, caller, request.args))
        except ControlError as error:
            answer = protocol.encode_error(error.code, error.message)
        except (OSError, TimeoutError):
            raise
        except Exception as error:  # a bug must not take the control socket away from the operator
            traceback.print_exc(file=sys.stderr)
            message = f"{type(error).__name__}: {error}; lbfast's error output has more"
            answer = protocol.encode_error("internal", message)
        await _send(writer, answer)

    async def _run(self, verb: Verb, caller: Caller, args: dict[str, Any]) -> dict[str, Any]:
        try:
            outcome = verb(self._engine, caller, args)
            if isinstance(outcome, dict):
                return outcome
            if isinstance(outcome, Coroutine):
                return await outcome
            while True:
                try:
                    next(outcome)
                except StopIteration as end:
                    result: dict[str, Any] = end.value
                    return result
                await asyncio.sleep(0)  # others come first between two steps of a long report
        except TimeoutError as error:
            raise ControlError("busy", f"a part of the persistence table is locked, try again: {error}") from error
        except OSError as error:  # of the verb, not of the client's connection
            raise ControlError("internal", f"the system refused: {error.strerror or error}") from error

    async def _follow(
        self,
        verb: Verb,
        args: dict[str, Any],
        caller: Caller,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Send events until the client closes.  With ``limit`` the newest kept ones go first."""
        kept = (await self._run(verb, caller, args))["events"]
        follower = self._engine.events.follow(connections=args.get("connections") is not False)
        sending = asyncio.create_task(self._send_events(kept, follower, writer))
        leaving = asyncio.create_task(_wait_for_end(reader))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._engine.events.unfollow(follower)
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            writer.transport.abort()

    async def _send_events(
        self, records: list[dict[str, Any]], follower: Follower, writer: asyncio.StreamWriter
    ) -> None:
        missed = 0
        while True:
            for record in records:
                writer.write(protocol.encode_result(record))
                await writer.drain()
            if missed:
                writer.write(protocol.encode_result(self._missed(missed)))
                await writer.drain()
            records, missed = await follower.take()

    def _missed(self, count: int) -> dict[str, Any]:
        message = f"{count} events were left out here: more came than this reader took"
        return {"at": self._engine.clock.now_iso(), "event": "process", "message": message, "missed": count}


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    async with asyncio.timeout(WRITE_S):
        await writer.drain()


async def _wait_for_end(reader: asyncio.StreamReader) -> None:
    """Until the client closes; whatever it still says is thrown away."""
    with suppress(OSError):
        while await reader.read(65_536):
            pass
