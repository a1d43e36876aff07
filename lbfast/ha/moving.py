"""A planned takeover takes established connections along: out of the workers, frozen, shipped, recreated, set going.

The box that is to be active asks.  The active one has its workers send every connection of the services that can move
here, freezes them, ships their images, and lets go of the addresses; then the other one sets them going and hands them
to its workers.  Whatever fails before that, the connections go on where they are.

Who may set them going, so that nobody does it twice: the taker only when the giver has said that all are shipped, and
until TAKE_WITHIN_MS after it asked; the giver, if it still has the addresses, when they are not all shipped, or not
before KEEP_AFTER_MS after it was asked, which is later.  Whoever has frozen ones that nobody may set going ends them by
RST once it is certain that the other one does not: no client waits for an answer that cannot come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lbfast._tcp_image import ImageError, recreate
from lbfast.ha.conn_image import ConnImage
from lbfast.ha.doors import Doors, Held
from lbfast.ha.note import Note
from lbfast.ha.plan import HaPlan

TAKE_WITHIN_MS = 1000
KEEP_AFTER_MS = 1500
ASK_S = 0.9
MOST_BYTES_SHIPPED = 96 << 20  # more takes too long
BATCH = 31  # connections; then heartbeats get their turn, and the peer its part.  Two sockets each fit a message


class Peer(Protocol):
    """The replication link, as long as there is one."""

    async def ask(self, verb: str, args: Mapping[str, Any]) -> dict[str, Any]: ...
    async def send_images(self, data: bytes) -> None: ...


@dataclass
class Means:
    """What both halves of a move work with.  ``peer``: None without a link; ``is_active``: of this box."""

    plan: Callable[[], HaPlan]
    doors: Doors
    note: Note
    peer: Callable[[], Peer | None]
    now: Callable[[], int]
    is_active: Callable[[], bool]
    is_peer_active: Callable[[], bool]
    moving: Callable[[], Container[str]]  # addresses that this box has only while it is active
    tell: Callable[[str], None]

    def go_on(self, held: Held) -> bool:
        """To one of our workers, as if nothing had been."""
        try:
            held.set_going()
            self.doors.deliver(held)
        except OSError as error:
            self.tell(f"a connection could not be set going: {error}")
            held.close()
            return False
        return True

    def recreate(self, image: ConnImage) -> Held:
        """Frozen; ImageError or OSError when it cannot be had here."""
        held = self.place(image, ())
        ours = {it.address for it in self.plan().services}
        if not ours.issuperset((image.client.local[0], image.server.local[0])):
            raise ImageError("its addresses are not service addresses there")
        held.is_copy = True
        try:
            for end in (image.client, image.server):
                held.ends += (recreate(end),)
        except BaseException:
            held.close()
            raise
        return held

    def place(self, image: ConnImage, ends: tuple[int, ...]) -> Held:
        """A connection that has this image, by its two sockets; ImageError when it has no place here."""
        plan = self.plan()
        service = next((it for it in plan.services if it.id == image.service), None)
        real = None if service is None else next((it for it in service.reals if it.id == image.real), None)
        if service is None or real is None:
            raise ImageError("its virtual service or real server is not configured there")
        return Held(
            ends, service.slot, real.slot, image.record, image.inbound, image.outbound, (image.client, image.server)
        )


def is_cancelled() -> bool:
    """Whether this very task is, and not what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
