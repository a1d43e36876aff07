"""Control's side of the commit messages: asks the supervisor and waits for its answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from lbfast.control.protocol import ControlError

OPEN_S: Final = 60.0  # neighbours are asked whether an address is free, IPv6 detects duplicates
ACTIVATE_S: Final = 60.0


class SendingChannel(Protocol):
    def send(self, message: Mapping[str, object], fds: Sequence[int] = (), /) -> None: ...


class SupervisorLine:
    """One question at a time.  ``attach`` makes a stick table of a descriptor."""

    def __init__(self, channel: SendingChannel, attach: Callable[[int], Any]) -> None:
        self._channel = channel
        self._attach = attach
        self._answer: asyncio.Future[Mapping[str, Any]] | None = None
        self._sticks: dict[int, Any] = {}
        self._done: dict[int, asyncio.Future[Mapping[str, Any]]] = {}  # requests that are not commits, by number
        self._number = 0
        self.is_gone = False

    async def open(self, memfd: int) -> dict[int, Any]:
        """The stick tables of new services, by slot; ControlError when the supervisor refuses."""
        self._sticks = {}
        answer = await self._ask({"do": "open"}, [memfd], OPEN_S)
        if answer.get("event") == "refused":
            raise ControlError("refused", "\n".join(map(str, answer.get("problems", ()))))
        return self._sticks

    async def probe(self) -> None:
        """Wait until health has judged the new real servers, or for so long that it is no use to wait."""
        await self._ask({"do": "probe"}, (), OPEN_S)

    def begin_activate(self, cut: bool) -> asyncio.Future[Mapping[str, Any]]:
        """Send at once, without a pause in which other verbs could come between; the answer comes later."""
        return self._send({"do": "activate", "cut": cut}, ())

    async def wait_activated(self, answer: asyncio.Future[Mapping[str, Any]]) -> None:
        async with asyncio.timeout(ACTIVATE_S):
            await answer

    def start_ha(self) -> None:
        """Have the ha process started; nothing happens when it runs."""
        self._channel.send({"do": "start_ha"})

    async def request(self, message: Mapping[str, object], timeout: float) -> Mapping[str, Any]:
        """Something that is no commit: ``failure`` is empty when it was done, else why not; perhaps a ``result``."""
        if self.is_gone:
            raise _gone()
        self._number += 1
        number = self._number
        done = self._done[number] = asyncio.get_running_loop().create_future()
        try:
            self._channel.send({**message, "number": number})
            async with asyncio.timeout(timeout):
                answer: Mapping[str, Any] = await done
                return answer
        except TimeoutError:
            raise ControlError("internal", f"the supervisor did not answer within {timeout:g} s") from None
        except OSError as error:
            raise _gone() from error
        finally:
            self._done.pop(number, None)

    def cancel(self, published: bool) -> None:
        """Put back what ``open`` got."""
        try:
            self._channel.send({"do": "cancel", "published": published})
        except OSError:
            pass  # nobody is left who could

    def hear(self, message: Mapping[str, Any], fds: Sequence[int]) -> bool:
        """Whether this was an answer; the descriptors are ours then."""
        event = message.get("event")
        if event == "done":
            done = self._done.get(message.get("number", 0))
            if done is not None and not done.done():
                done.set_result(message)
            return True
        if event not in ("opened", "refused", "probed", "activated"):
            return False
        for slot, fd in zip(message.get("sticks", ()), fds, strict=False):
            self._sticks[slot] = self._attach(fd)
            os.close(fd)  # attach has its own
        if event == "opened" and not message.get("last"):
            return True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
        return True

    def lost(self) -> None:
        """The supervisor is gone."""
        self.is_gone = True
        for answer in (self._answer, *self._done.values()):
            if answer is not None and not answer.done():
                answer.set_exception(_gone())

    async def _ask(self, message: Mapping[str, object], fds: Sequence[int], timeout: float) -> Mapping[str, Any]:
        answer = self._send(message, fds)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise ControlError("internal", f"the supervisor did not answer within {timeout:g} s") from None

    def _send(self, message: Mapping[str, object], fds: Sequence[int]) -> asyncio.Future[Mapping[str, Any]]:
        if self.is_gone:
            raise _gone()
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._channel.send(message, fds)
        except OSError as error:
            raise _gone() from error
        return self._answer


def _gone() -> ControlError:
    return ControlError("refused", "the supervisor is gone: nothing can be changed until lbfast is started again")
