"""What a takeover has left in our workers: its address is the peer's now, so both ends are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lbfast.ha.collecting import SLOW, collect
from lbfast.ha.doors import Held
from lbfast.ha.moving import Means
from lbfast.model.state import Ended

_SUCCESSOR_MS, _SUCCESSOR_S = 5000, 0.005  # for the peer to have the addresses; how often it is looked at
_STRAGGLERS_S = 5.0  # what was being connected is then, or is no more


@dataclass
class Sweeper:
    """One per ha process."""

    means: Means
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The addresses are gone from here."""
        if self.task is not None:
            self.task.cancel()
        self.task = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """The peer has the address of what is left: the other ends should not wait for what cannot come any more."""
        until = self.means.now() + _SUCCESSOR_MS
        while not self.means.is_peer_active():
            if self.means.is_active() or self.means.now() >= until:
                return  # nobody has it: what is left may still go on
            await asyncio.sleep(_SUCCESSOR_S)
        try:
            await self._sweep_all()
            await asyncio.sleep(_STRAGGLERS_S)
            await self._sweep_all()
        finally:
            self.means.doors.close()

    async def _sweep_all(self) -> None:
        """In rounds, because no worker may be kept from its other work for long."""
        count = 0
        while self.means.is_peer_active() and (ended := await self._sweep_some()):
            count += ended
        if count:
            self.means.tell(f"{count} connections are reset: the peer has their service address now")

    async def _sweep_some(self) -> int:
        means, count = self.means, 0

        def end(held: Held) -> None:
            nonlocal count
            if means.is_peer_active():
                held.end()
                count += 1
            else:  # since a moment ago
                means.go_on(held)

        moving = means.moving()
        slots = [service.slot for service in means.plan().services if service.address in moving]
        try:
            if slots and not await collect(means.doors, slots, end, means.tell, Ended.TAKEOVER):
                means.tell(SLOW)
        except OSError as error:
            means.tell(f"connections whose address is gone are not reset: {error}")
        return count
