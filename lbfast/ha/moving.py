"""A planned takeover takes established connections along: out of the workers, frozen, shipped, recreated, set going.

The box that is to be active asks.  The active one has its workers send every connection of the services that can move
here, freezes them, ships their images, and lets go of the addresses; then the other one sets them going and hands them
to its workers.  Whatever fails before that, the connections go on where they are.

Time decides who may set them going, so that nobody does it twice: the taker only until TAKE_WITHIN_MS after it asked,
the giver, if it still has the addresses, not before KEEP_AFTER_MS after it was asked, which is later.
"""

from __future__ import annotations

import array
import asyncio
import base64
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lbfast._letters import MOST_BYTES, read_letter, write_letter
from lbfast.ha.conn_image import ConnImage, pack, unpack
from lbfast.ha.doors import Doors, Held
from lbfast.ha.plan import HaPlan
from lbfast.ha.tcp_image import ImageError, TcpImage, freeze, recreate, resume, thaw, unacknowledged

TAKE_WITHIN_MS = 1000
KEEP_AFTER_MS = 1500
COLLECT_S = 0.5  # for the workers to send everything
ASK_S = 0.9
SETTLE_STEPS, SETTLE_S = 4, 0.005  # what is under way is acknowledged meanwhile
MOST_BYTES_SHIPPED = 32 << 20
_PART = 1 << 20  # bytes of the stream in one message of the link
_BREATH = 16  # connections; then heartbeats get their turn
_HANDS = 6
_FLOW_EOF = 1  # of _conn.FlowFlags

Ask = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]


@dataclass
class Moving:
    """``ask``: the peer, or None without a link; ``is_active``: of this box."""

    plan: Callable[[], HaPlan]
    doors: Doors
    ask: Callable[[], Ask | None]
    now: Callable[[], int]
    is_active: Callable[[], bool]
    tell: Callable[[str], None]
    _given: list[Held] = field(default_factory=list)  # frozen, until the addresses are gone
    _taken: list[Held] = field(default_factory=list)  # recreated, until the addresses are here
    _taken_until: int = 0
    _stream: bytearray = field(default_factory=bytearray)
    _keeper: asyncio.TimerHandle | None = None

    # --- the box that takes -------------------------------------------------------

    async def fetch(self) -> None:
        """Have the active peer freeze its connections and ship them; a takeover should follow at once."""
        ask = self.ask()
        if ask is None or not any(service.is_movable for service in self.plan().services):
            return
        self._drop_taken()
        self._taken_until = self.now() + TAKE_WITHIN_MS
        try:
            async with asyncio.timeout(ASK_S):
                await self.doors.open()
                answer = await ask("give_connections", {})
        except (TimeoutError, OSError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            self._drop_taken()
            self.tell(f"established connections are not moved: {str(error) or 'the peer does not answer in time'}")
            return
        if not answer.get("ok"):
            self._drop_taken()
            self.tell(f"established connections are not moved: {answer.get('message')}")

    async def on_part(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """A piece of the stream of images; with the last one they are recreated."""
        if self.is_active() or self.now() >= self._taken_until:
            return {"ok": False, "message": "this box has not asked for connections, or too long ago"}
        if args.get("first"):
            self._stream.clear()
        self._stream += base64.b64decode(args["data"], validate=True)
        if len(self._stream) > 2 * MOST_BYTES_SHIPPED:
            self._stream.clear()
            return {"ok": False, "message": "more bytes than were agreed on"}
        if not args.get("last"):
            return {"ok": True}
        stream, self._stream = self._stream, bytearray()
        try:
            images = list(unpack(stream))
        except ImageError as error:
            return {"ok": False, "message": str(error)}
        failed: dict[int, str] = {}
        for number, image in enumerate(images):
            try:
                self._taken.append(self._recreate(image))
            except (ImageError, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
                failed[number] = f"the peer cannot recreate it: {error}"
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        return {"ok": True, "failed": failed}

    def _recreate(self, image: ConnImage) -> Held:
        service = next((it for it in self.plan().services if it.id == image.service), None)
        real = None if service is None else next((it for it in service.reals if it.id == image.real), None)
        if service is None or real is None:
            raise ImageError("its virtual service or real server is not configured there")
        ours = {it.address for it in self.plan().services}
        if not ours.issuperset((image.client.local[0], image.server.local[0])):
            raise ImageError("its addresses are not service addresses there")
        # Whatever does not fit into a worker's record is found out now.
        write_letter({**image.facts, "service": service.slot, "real": real.slot}, image.inbound, image.outbound)
        client = recreate(image.client)
        try:
            server = recreate(image.server)
        except BaseException:
            client.close()
            raise
        images = (image.client, image.server)
        return Held((client, server), service.slot, real.slot, image.facts, image.inbound, image.outbound, images)

    def arrive(self) -> None:
        """The addresses are here: what was recreated goes on."""
        taken, self._taken = self._taken, []
        if not taken:
            return
        if self.now() >= self._taken_until:
            self._close(taken)
            self.tell(f"{len(taken)} connections came too late and are cut")
            return
        begun, moved = self.now(), 0
        for held in taken:
            assert held.images is not None
            try:
                for sock, image in zip(held.sockets, held.images, strict=True):
                    thaw(sock, image)
                self.doors.deliver(held)
                moved += 1
            except OSError as error:
                self.tell(f"a connection could not be set going: {error}")
                held.close()
        self.tell(f"{moved} of {len(taken)} connections taken over, set going in {self.now() - begun} ms")
        self.doors.close()

    def _drop_taken(self) -> None:
        self._close(self._taken)
        self._taken.clear()
        self._stream.clear()
        self._taken_until = 0

    async def give_up(self) -> None:
        """The takeover did not come about: the connections are the peer's, who sets them going again."""
        had = bool(self._taken)
        self._drop_taken()
        self.doors.close()
        if had and (ask := self.ask()) is not None:
            with suppress(TimeoutError, OSError):
                await ask("keep_connections", {})

    # --- the box that gives -------------------------------------------------------

    async def on_give(self, _args: Mapping[str, Any]) -> dict[str, Any]:
        """The peer takes over in a moment: freeze what can be moved, and ship it."""
        ask = self.ask()
        if not self.is_active() or ask is None or self._given:
            return {"ok": False, "message": "this box is not active, or is giving its connections away already"}
        begun = self.now()
        self._keeper = asyncio.get_running_loop().call_later(KEEP_AFTER_MS / 1000, self.keep)
        stays: Counter[str] = Counter()
        try:
            held = await self._collect()
            await self._settle(held)
            self._given = await self._freeze(held, stays)
            message = await self._ship(ask, self._given, stays)
        except OSError as error:
            message = str(error)
        for reason, count in stays.items():
            self.tell(f"{count} connections are not moved: {reason}")
        if message:
            self.keep()
            return {"ok": False, "message": message}
        self.tell(f"{len(self._given)} connections are frozen and shipped to the peer, in {self.now() - begun} ms")
        return {"ok": True, "count": len(self._given)}

    def depart(self) -> None:
        """The addresses are gone: the connections are the peer's."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        self._close(self._given)
        self._given.clear()
        self.doors.close()

    async def on_keep(self, _args: Mapping[str, Any]) -> dict[str, Any]:
        """The peer has given the takeover up, and its copies."""
        self.keep()
        return {"ok": True}

    def keep(self) -> None:
        """The peer did not take over: the connections go on here."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        given, self._given = self._given, []
        if not given:
            return
        kept = sum(self._go_on(held) for held in given)
        self.doors.close()
        self.tell(f"the peer has not taken over: {kept} of {len(given)} connections go on here")

    async def _collect(self) -> list[Held]:
        """Everything that the workers send, until they have closed their ends."""
        slots = [service.slot for service in self.plan().services if service.is_movable]
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        found: list[Held] = []
        with ours:
            with theirs:
                await self.doors.open(slots, theirs.fileno())
            try:
                async with asyncio.timeout(COLLECT_S):
                    while await self._collect_some(ours, found):
                        await _readable(ours)
            except TimeoutError:
                self.tell("a worker does not send its connections in time; those are cut")
        return found

    async def _collect_some(self, ours: socket.socket, found: list[Held]) -> bool:
        """False when there is nothing to come any more."""
        while True:
            try:
                data, fds = _receive(ours)
            except BlockingIOError:
                return True
            if not data:
                return False
            try:
                held = _read(data, fds)
            except (ValueError, OSError) as error:
                self.tell(f"a connection is lost: {error}")
                continue
            found.append(held)

    async def _settle(self, held: Sequence[Held]) -> None:
        """What is under way now would be lost, and sent again only after a pause."""
        for _ in range(SETTLE_STEPS):
            if not any(unacknowledged(sock) for each in held for sock in each.sockets):
                return
            await asyncio.sleep(SETTLE_S)

    async def _freeze(self, found: Sequence[Held], stays: Counter[str]) -> list[Held]:
        frozen: list[Held] = []
        left = MOST_BYTES_SHIPPED
        for number, held in enumerate(found):
            try:
                held.images = _freeze_both(held)
                left -= sum(len(it.unread) + len(it.sent) + len(it.unsent) for it in held.images)
                if left < 0:
                    raise ImageError(f"all of them together hold more than {MOST_BYTES_SHIPPED >> 20} MB")
                _check_ends(held)
                frozen.append(held)
            except ImageError as error:
                stays[str(error)] += 1
                self._go_on(held)
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        return frozen

    async def _ship(self, ask: Ask, frozen: Sequence[Held], stays: Counter[str]) -> str:
        """Why it failed, or nothing; what the peer could not recreate goes on here until the addresses go."""
        stream = bytearray()
        for number, held in enumerate(frozen):
            stream += pack(self._image(held))
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        answer: dict[str, Any] = {}
        for at in range(0, max(1, len(stream)), _PART):
            part = base64.b64encode(stream[at : at + _PART]).decode()
            try:
                async with asyncio.timeout(ASK_S):
                    answer = await ask(
                        "take_connections", {"data": part, "first": not at, "last": at + _PART >= len(stream)}
                    )
            except (TimeoutError, OSError, asyncio.CancelledError):
                if _is_cancelled():
                    raise
                return "the link broke, or the peer did not answer in time"
            if not answer.get("ok"):
                return str(answer.get("message"))
        failed = {int(number): str(reason) for number, reason in answer.get("failed", {}).items()}
        for number, reason in failed.items():
            stays[reason] += 1
            self._go_on(frozen[number])
        self._given = [held for number, held in enumerate(frozen) if number not in failed]
        return ""

    def _image(self, held: Held) -> ConnImage:
        service = next(it for it in self.plan().services if it.slot == held.service)
        real = next(it for it in service.reals if it.slot == held.real)
        assert held.images is not None
        client, server = held.images
        return ConnImage(service.id, real.id, held.facts, client, server, held.inbound, held.outbound)

    def _go_on(self, held: Held) -> bool:
        """Back to one of our workers, as if nothing had been."""
        try:
            for sock in held.sockets:
                resume(sock)
            self.doors.deliver(held)
        except OSError as error:
            self.tell(f"a connection could not be kept: {error}")
            held.close()
            return False
        return True

    @staticmethod
    def _close(these: Iterable[Held]) -> None:
        for held in these:
            held.close()


def _freeze_both(held: Held) -> tuple[TcpImage, TcpImage]:
    client, server = held.sockets
    first = freeze(client)
    try:
        return first, freeze(server)
    except ImageError:
        resume(client)
        raise


def _check_ends(held: Held) -> None:
    """A FIN is not recreated; so whoever goes on must know of it already."""
    assert held.images is not None
    for image, name in zip(held.images, ("inbound", "outbound"), strict=True):
        if image.has_end and not held.facts[name]["flags"] & _FLOW_EOF:
            raise ImageError("one side has closed it just now")


def _read(data: bytes, fds: list[int]) -> Held:
    try:
        facts, inbound, outbound = read_letter(data, len(fds))
        strings, rest = [], fds[2:]
        for block, size in (inbound, outbound):
            if size:
                block = _drain(rest[0], size)
                rest = rest[2:]
            strings.append(block)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    for fd in fds[2:]:
        os.close(fd)
    sockets = (socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))
    return Held(sockets, facts.pop("service"), facts.pop("real"), facts, strings[0], strings[1])


def _drain(pipe: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(pipe, size)
        if not part:
            raise OSError("a pipe holds less than it should")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = sock.recvmsg(MOST_BYTES, socket.CMSG_SPACE(_HANDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


async def _readable(sock: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _is_cancelled() -> bool:
    """Whether this very task is, and not what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
