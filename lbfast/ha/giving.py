"""The active box in a planned takeover: takes its connections out of the workers, freezes, ships, lets them go."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbfast._letters import read_ends
from lbfast._tcp_image import ImageError, freeze, resume, unacknowledged
from lbfast.ha.collecting import SLOW, collect
from lbfast.ha.conn_image import ConnImage, pack, unpack
from lbfast.ha.doors import Held, end_all
from lbfast.ha.moving import ASK_S, BATCH, KEEP_AFTER_MS, MOST_BYTES_SHIPPED, Means, Peer, is_cancelled
from lbfast.ha.note import Kept, Role
from lbfast.ha.sweeping import Sweeper
from lbfast.ha.taking import NUMBER

Place = tuple[str, int]  # address and port

SETTLE_STEPS, SETTLE_S = 4, 0.005  # what is under way is acknowledged meanwhile
_PART = 1 << 20  # bytes of the stream in one message of the link
_HOLD_S = 5.0  # at least: should the peer die before it has the addresses, they are back here long before
TOO_LONG = "it has taken too long, and the connections have gone on"


@dataclass
class Giver:
    """One per ha process."""

    means: Means
    sweeper: Sweeper = field(init=False)
    _given: list[Held] = field(default_factory=list)  # frozen, until the addresses are gone
    _departed: list[Held] = field(default_factory=list)  # frozen, the peer's if it lives
    _is_giving: bool = False  # until the connections are gone, or go on here
    _is_busy: bool = False  # ... and whoever does it is still at it
    _is_shipped: bool = False  # the peer has all of them
    _number: int = 0
    _left: int = 0  # bytes that may still be shipped
    _keeper: asyncio.TimerHandle | None = None
    _holder: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.sweeper = Sweeper(self.means)

    async def on_give(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The peer takes over in a moment: freeze what can be moved, and ship it."""
        peer, means = self.means.peer(), self.means
        if not means.is_active() or peer is None or self._is_giving or self._is_busy:
            return {"ok": False, "message": "this box is not active, or is giving its connections away already"}
        self._is_busy = True
        try:
            return await self._give(peer, args)
        finally:
            self._is_busy = False

    async def _give(self, peer: Peer, args: Mapping[str, Any]) -> dict[str, Any]:
        means, begun = self.means, self.means.now()
        self._is_giving, self._is_shipped, self._left = True, False, MOST_BYTES_SHIPPED
        self._number = int(args.get("move", 0))
        means.note.begin(Role.GIVEN, begun)
        self._keeper = asyncio.get_running_loop().call_later(KEEP_AFTER_MS / 1000, self.keep)
        stays: Counter[str] = Counter()
        try:
            # There they go on whatever happens.
            movable = (service.slot for service in means.plan().services if service.is_movable)
            if not await collect(means.doors, movable, self._given.append, means.tell):
                means.tell(SLOW)
            collected = means.now()
            await self._settle(self._given)
            frozen = means.now()
            message = await self._freeze_and_ship(peer, stays)
        except (OSError, TimeoutError) as error:
            message = str(error) or "the link broke, or the peer did not answer in time"
        except asyncio.CancelledError:
            self._leave_off()  # the link broke, and this answer would go nowhere
            raise
        for reason, count in stays.items():
            means.tell(f"{count} connections are not moved: {reason}")
        if message:
            self._leave_off()
            return {"ok": False, "message": message}
        means.tell(
            f"{len(self._given)} connections are frozen and shipped to the peer, in {means.now() - begun} ms: "
            f"{collected - begun} ms to collect them, {means.now() - frozen} ms to freeze and ship them"
        )
        return {"ok": True, "count": len(self._given)}

    def _leave_off(self) -> None:
        """Whatever is still in our hands goes on here, or is ended when there is no here any more."""
        if self.means.is_active():
            self.keep()
        else:
            self.depart()

    def depart(self) -> None:
        """The addresses are gone, and the connections with them: the peer's, if it has them."""
        given = self._take_all()
        if self._is_shipped:
            self.forget()
            self._departed = given
            settings = self.means.plan().settings
            hold = max(_HOLD_S, 2 * settings.interval * settings.missed / 1000)
            self._holder = asyncio.get_running_loop().call_later(hold, self.forget)
        elif given:
            asyncio.get_running_loop().call_soon(end_all, given)  # the peer's claim is answered first
            self.means.tell(f"{len(given)} connections are reset: the peer does not have all of them")
        self._finish()
        self.sweeper.start()

    def come_back(self) -> None:
        """The addresses are here again: what the peer had has ended with it, and its clients should know."""
        departed, self._departed = self._departed, []
        end_all(departed)
        self.forget()
        if departed:
            self.means.tell(
                f"{len(departed)} connections that were the peer's are reset: it does not have them any more"
            )

    def forget(self) -> None:
        """What has departed, without a word; also before it may come back: nobody can have a connection twice."""
        if self._holder is not None:
            self._holder.cancel()
            self._holder = None
        for held in self._departed:
            held.close()
        self._departed = []

    async def on_keep(self, _args: Mapping[str, Any]) -> dict[str, Any]:
        """The peer has given the takeover up, and its copies."""
        self.keep()
        return {"ok": True}

    def keep(self) -> None:
        """The peer did not take over: the connections go on here."""
        given = self._take_all()
        kept = sum(self.means.go_on(held) for held in given)
        self._finish()
        if given:
            self.means.tell(f"the peer has not taken over: {kept} of {len(given)} connections go on here")

    def stay(self) -> None:
        """This process ends, and the addresses stay: what is in its hands goes on here."""
        if self.means.is_active():
            self.keep()

    def _take_all(self) -> list[Held]:
        """Out of the one list, which others are adding to perhaps."""
        given = self._given[:]
        self._given.clear()
        return given

    def _finish(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        self._is_giving = False
        self.means.doors.close()
        self.means.note.end()

    async def recover(self, kept: Kept) -> None:
        """Connections that the process before this one had frozen when it died: its sockets are gone, silently."""
        means = self.means
        self._is_giving, self._is_shipped = True, kept.is_shipped
        if means.is_active() or not kept.is_shipped:
            self._find_again(kept)
        if not means.is_active():
            self.depart()  # the addresses went before we had the note
            return
        left_ms = kept.at + KEEP_AFTER_MS - means.now() if kept.is_shipped else 0
        self._keeper = asyncio.get_running_loop().call_later(max(0, left_ms) / 1000, self.keep)

    def _find_again(self, kept: Kept) -> None:
        originals = _by_client(kept.entrusted)
        failed = 0
        try:
            for image in unpack(kept.stream):
                ends = originals.pop((image.client.local, image.client.remote), None)
                try:
                    self._given.append(self.means.recreate(image) if ends is None else self.means.place(image, ends))
                except (ImageError, OSError):
                    failed += 1  # it was reset when its client spoke, or is a worker's already
                    if ends is not None:
                        end_all([_bare(ends)])
        except ImageError as error:
            self.means.tell(f"a note of connections cannot be read: {error}")
        # Those of the last batch that have no image yet: nobody could set them going.
        end_all([_bare(ends) for ends in originals.values()])
        self.means.tell(
            f"{len(self._given)} connections that were being given away are found again, {failed} are lost"
            + (f"; {len(originals)} that were just being frozen are reset" if originals else "")
        )

    # --- frozen, and to the peer ------------------------------------------------------

    async def _settle(self, held: Sequence[Held]) -> None:
        """What is under way now would be lost, and sent again only after a pause."""
        for _ in range(SETTLE_STEPS):
            if not any(unacknowledged(fd) for each in held for fd in each.ends):
                return
            await asyncio.sleep(SETTLE_S)

    async def _freeze_and_ship(self, peer: Peer, stays: Counter[str]) -> str:
        """In batches, so that the peer recreates while we freeze; why it failed, or nothing."""
        found, frozen = self._given[:], list[Held]()
        for at in range(0, len(found), BATCH):
            if not self._is_giving:
                return TOO_LONG
            batch = found[at : at + BATCH]
            self.means.note.entrust([fd for held in batch for fd in held.ends])
            pieces = [piece for held in batch if (piece := self._freeze(held, stays))]
            self.means.note.entrust(())
            frozen += [held for held in batch if held.images is not None]
            await self._send(peer, b"".join(pieces))
            await asyncio.sleep(0)  # heartbeats come first
        try:
            async with asyncio.timeout(ASK_S):
                answer = await peer.ask("take_connections", {"move": self._number, "count": len(frozen)})
        except (TimeoutError, OSError, asyncio.CancelledError):
            if is_cancelled():
                raise
            return "the link broke, or the peer did not answer in time"
        if not answer.get("ok"):
            return str(answer.get("message"))
        if not self._is_giving:
            return TOO_LONG
        for number, reason in answer.get("failed", {}).items():
            self._stay(frozen[int(number)], str(reason), stays)
        self._is_shipped = True
        self.means.note.mark_shipped()
        return ""

    async def _send(self, peer: Peer, stream: bytes) -> None:
        for at in range(0, len(stream), _PART):
            async with asyncio.timeout(ASK_S):
                await peer.send_images(NUMBER.pack(self._number) + stream[at : at + _PART])

    def _freeze(self, held: Held, stays: Counter[str]) -> bytes:
        """Its image, or nothing when it stays."""
        try:
            _freeze_both(held)
            assert held.images is not None
            _check_ends(held)
            self._left -= sum(image.size for image in held.images)
            if self._left < 0:
                raise ImageError(f"all of them together hold more than {MOST_BYTES_SHIPPED >> 20} MB")
            piece = pack(self._image(held))
        except ImageError as error:
            self._stay(held, str(error), stays)
            return b""
        self.means.note.add(piece)
        return piece

    def _stay(self, held: Held, reason: str, stays: Counter[str]) -> None:
        """It goes on here until the address goes."""
        stays[reason] += 1
        held.images = None
        self._given.remove(held)
        self.means.go_on(held)

    def _image(self, held: Held) -> ConnImage:
        service = next((it for it in self.means.plan().services if it.slot == held.service), None)
        real = None if service is None else next((it for it in service.reals if it.slot == held.real), None)
        if service is None or real is None:
            raise ImageError("its virtual service or real server is not configured any more")
        assert held.images is not None
        client, server = held.images
        return ConnImage(service.id, real.id, held.record, client, server, held.inbound, held.outbound)


def _by_client(fds: Sequence[int]) -> dict[tuple[Place, Place], tuple[int, int]]:
    """Both sockets of each connection, by the places of its client's as an image has them."""
    found = {}
    for ends in zip(fds[::2], fds[1::2], strict=True):
        with socket.socket(fileno=os.dup(ends[0])) as sock:
            try:
                found[sock.getsockname()[:2], sock.getpeername()[:2]] = ends
            except OSError:  # it has ended
                end_all([_bare(ends)])
    return found


def _bare(ends: tuple[int, int]) -> Held:
    """Of which nothing is known but its sockets."""
    return Held(ends, 0, 0, b"", b"", b"")


def _freeze_both(held: Held) -> None:
    client, server = held.ends
    first = freeze(client)
    try:
        held.images = first, freeze(server)
    except ImageError:
        resume(client)
        raise


def _check_ends(held: Held) -> None:
    """A FIN is not recreated; so whoever goes on must know of it already."""
    assert held.images is not None
    for image, is_known in zip(held.images, read_ends(held.record), strict=True):
        if image.has_end and not is_known:
            raise ImageError("one side has closed it just now")
