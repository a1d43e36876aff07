"""The box that is to be active: has its peer's connections shipped, and sets them going once the addresses are here."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lbfast._tcp_image import ImageError
from lbfast.ha.conn_image import unpack
from lbfast.ha.doors import Held, end_all
from lbfast.ha.moving import ASK_S, BATCH, MOST_BYTES_SHIPPED, TAKE_WITHIN_MS, Means, is_cancelled
from lbfast.ha.note import Kept, Role

NUMBER = struct.Struct("!I")  # of the move, before each piece of the stream
_LOOK_S = 0.005
_WAIT_S = 5.0  # for the addresses, with what a dead process has left


@dataclass
class _Arrival:
    """Of connections whose address is here: since when, how many, and how many of them go on."""

    begun: int
    count: int
    moved: int = 0


@dataclass
class Taker:
    """One per ha process."""

    means: Means
    _taken: list[Held] = field(default_factory=list)  # frozen copies, until the addresses are here
    _arriving: deque[Held] = field(default_factory=deque)  # ... and from then on, until they are set going
    _task: asyncio.Task[None] | None = None  # that sets them going
    _number: int = 0  # of the move
    _until: int = 0  # for setting them going
    _is_confirmed: bool = False  # the giver has said that all are shipped
    _stream: bytearray = field(default_factory=bytearray)
    _bytes: int = 0
    _images: int = 0
    _failed: dict[int, str] = field(default_factory=dict)
    _trouble: str = ""
    _patience: asyncio.TimerHandle | None = None

    async def fetch(self) -> None:
        """Have the active peer freeze its connections and ship them; a takeover should follow at once."""
        peer, means = self.means.peer(), self.means
        if peer is None or not any(service.is_movable for service in means.plan().services):
            return
        self._begin(means.now())
        try:
            async with asyncio.timeout(ASK_S):
                await means.doors.open()
                answer = await peer.ask("give_connections", {"move": self._number})
        except (TimeoutError, OSError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            answer = {"message": str(error) or "the peer does not answer in time"}
        self._is_confirmed = answer.get("ok") is True
        if self._is_confirmed:
            means.note.mark_shipped()
        else:
            means.tell(f"established connections are not moved: {answer.get('message')}")

    def _begin(self, now: int) -> None:
        self.drop()
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._until = now + TAKE_WITHIN_MS
        self.means.note.begin(Role.TAKEN, now)

    def on_images(self, data: bytes) -> None:
        """A piece of the stream of images: they are recreated as they come."""
        means = self.means
        number = int.from_bytes(data[: NUMBER.size], "big")
        if number != self._number or self._trouble or means.is_active() or means.now() >= self._until:
            return  # of a move that has been given up
        self._bytes += len(data)
        if self._bytes > 2 * MOST_BYTES_SHIPPED:
            self._trouble = "more bytes than were agreed on"
            return
        piece = memoryview(data)[NUMBER.size :]
        means.note.add(piece)
        self._stream += piece
        self._recreate()

    def _recreate(self) -> None:
        """All whole images of the stream."""
        try:
            for image in unpack(self._stream):
                try:
                    self._taken.append(self.means.recreate(image))
                except (ImageError, OSError) as error:
                    self._failed[self._images] = f"the peer cannot recreate it: {error}"
                self._images += 1
        except ImageError as error:
            self._trouble = str(error)

    async def on_all(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Everything has been sent: which ones are not to be had here."""
        if self.means.is_active() or self.means.now() >= self._until or args.get("move") != self._number:
            return {"ok": False, "message": "this box has not asked for connections, or too long ago"}
        if self._trouble:
            return {"ok": False, "message": self._trouble}
        if self._images != args.get("count"):
            return {"ok": False, "message": f"{self._images} images have come, not {args.get('count')}"}
        return {"ok": True, "failed": self._failed}

    def arrive(self) -> None:
        """The addresses are here: what was recreated goes on, or is ended where that would not be safe."""
        taken, self._taken = self._taken, []
        means, begun = self.means, self.means.now()
        if taken and self._is_confirmed and begun < self._until:
            self._arriving.extend(taken)
            arrival = _Arrival(begun, len(taken))
            self._set_going(arrival, BATCH)
            if self._arriving:
                self._task = asyncio.get_running_loop().create_task(self._set_all_going(arrival))
            return
        if taken:
            end_all(taken)
            means.tell(f"{len(taken)} connections came too late, or not with all others, and are reset")
        self.drop()

    async def _set_all_going(self, arrival: _Arrival) -> None:
        while self._arriving:
            await asyncio.sleep(0)  # heartbeats come first
            if self._arriving:  # else the addresses have gone again
                self._set_going(arrival, BATCH)

    def _set_going(self, arrival: _Arrival, most: int) -> None:
        """So many of them; with the last one all is over."""
        means = self.means
        for _ in range(min(most, len(self._arriving))):
            arrival.moved += means.go_on(self._arriving.popleft())
        if not self._arriving:
            took = means.now() - arrival.begun
            means.tell(f"{arrival.moved} of {arrival.count} connections taken over, set going in {took} ms")
            self.drop()

    async def arrived(self) -> None:
        """Until what is here has gone to the workers, from where it could be given away again."""
        while self._arriving:
            await asyncio.sleep(_LOOK_S)

    def stay(self) -> None:
        """This process ends, and the addresses stay: what is in its hands goes on here."""
        if self._arriving:
            self._set_going(_Arrival(self.means.now(), len(self._arriving)), len(self._arriving))

    def depart(self) -> None:
        """The addresses are gone again, before all were set going."""
        if self._arriving:
            self.means.tell(f"{len(self._arriving)} connections that were just being taken over are reset")
            end_all(self._arriving)
            self._arriving.clear()
            self.drop()

    def drop(self) -> None:
        """Without a word: they are the peer's, or none are left."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        for held in self._taken:
            held.close()
        self._taken = []
        self._stream.clear()
        self._failed.clear()
        self._until = self._bytes = self._images = 0
        self._is_confirmed, self._trouble = False, ""
        self.means.doors.close()
        self.means.note.end()

    async def give_up(self) -> None:
        """The takeover did not come about: the connections are the peer's, who sets them going again."""
        was_begun = self._until > 0
        self.drop()
        if was_begun and (peer := self.means.peer()) is not None:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(ASK_S):
                    await peer.ask("keep_connections", {})

    async def recover(self, kept: Kept) -> None:
        """Copies that the process before this one had in its hands when it died."""
        self._stream[:] = kept.stream
        self._recreate()
        self.means.tell(f"{len(self._taken)} connections that were being taken over are found again")
        # Once the addresses have arrived here, the giver never sets them going again.
        self._is_confirmed = kept.has_arrived and kept.is_shipped
        self._until = self.means.now() + int(_WAIT_S * 1000)
        if self.means.is_active():
            self.arrive()
        else:
            self._is_confirmed = False
            self._patience = asyncio.get_running_loop().call_later(_WAIT_S, self.drop)
