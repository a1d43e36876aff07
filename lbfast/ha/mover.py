"""Both halves of a move of connections in one ha process, and what happens to them when the addresses come or go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbfast.ha.giving import Giver
from lbfast.ha.moving import Means
from lbfast.ha.note import Kept, Role
from lbfast.ha.replication import Handler
from lbfast.ha.taking import Taker


class Mover:
    """One per ha process."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self.giver, self.taker = Giver(means), Taker(means)

    def handlers(self) -> Mapping[str, Handler]:
        """Of the peer's questions."""
        return {
            "give_connections": self.on_give,
            "take_connections": self.taker.on_all,
            "keep_connections": self.giver.on_keep,
        }

    async def on_give(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The peer takes over; perhaps while connections of an earlier takeover are still arriving here."""
        await self.taker.arrived()
        return await self.giver.on_give(args)

    def on_addresses(self, *, are_here: bool) -> None:
        """They have come or gone, a moment ago."""
        if are_here:
            self.giver.come_back()
            self.taker.arrive()
        else:
            self.taker.depart()
            self.giver.depart()

    def stay(self) -> None:
        """This process ends, and the addresses stay."""
        self.taker.stay()  # first: what the giver does closes the doors and ends the note
        self.giver.stay()

    async def recover(self, kept: Kept) -> None:
        """What the process before this one had in its hands when it died."""
        half = self.giver if kept.role is Role.GIVEN else self.taker
        await half.recover(kept)
