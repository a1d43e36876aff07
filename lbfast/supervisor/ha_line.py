"""The supervisor and its ha process: what it is told, and who holds the addresses when a pair begins or ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from lbfast.supervisor.addresses import AddressFaults
from lbfast.supervisor.bodies import HA
from lbfast.supervisor.channel import MAX_FDS, Message
from lbfast.supervisor.children import Child
from lbfast.supervisor.ha_body import make_plan
from lbfast.supervisor.post import Post, in_parts
from lbfast.supervisor.ranks import Ranks
from lbfast.supervisor.start import Assets
from lbfast.supervisor.switch import wanted_addresses


class HaLine:
    """One per supervisor; the ha process may be there or not."""

    def __init__(self, assets: Assets, ranks: Ranks, post: Post, complain: Callable[[str], None]) -> None:
        self._assets = assets
        self._ranks = ranks
        self._post = post
        self._complain = complain
        self._plan_fd = -1  # of the last plan: open until the next one, because it may still wait to be sent

    def tell_plan(self) -> None:
        """A commit stands: other addresses, other tables; tables first."""
        child, assets = self._child, self._assets
        if child is None:
            return
        self.close()
        self._plan_fd = make_plan(assets.config, assets.layout, assets.version).pack()
        sticks = assets.shared.sticks
        for part, fds in in_parts({"do": "sticks"}, "slots", list(sticks), [it.fd for it in sticks.values()]):
            self._post.send(child, part, fds)
        self._post.send(child, {"do": "plan"}, [self._plan_fd])

    def release(self) -> None:
        """A stop begins: the peer's clients should not wait for ours to end."""
        if (child := self._child) is not None:
            self._post.send(child, {"do": "release"})

    def hears(self, child: Child, message: Message, fds: Sequence[int]) -> bool:
        """Whether this message is about the pair; then the ha process should run."""
        if child.name == HA and message.get("event") == "doors":
            self._open_doors(child, message.get("services", ()), fds)
            return True
        if child.name == HA and message.get("event") == "pair":
            self._on_pair(message)
            return True
        if child.name == "control" and message.get("do") == "start_ha":
            self._ranks.bodies.want_ha()
            return True
        return False

    def _on_pair(self, message: Message) -> None:
        """The ha process has a pair now, or has none any more."""
        addresses, config = self._assets.addresses, self._assets.config
        if message.get("paired") and not addresses.is_paired:
            addresses.hand_over()
        elif not message.get("paired") and addresses.is_paired:
            try:
                addresses.take_back(wanted_addresses(config), hold=message.get("active") is True)
            except AddressFaults as error:
                self._complain(f"the service addresses cannot be kept: {error}")

    def _open_doors(self, child: Child, services: Sequence[int], fds: Sequence[int]) -> None:
        """A planned takeover: the workers' inboxes for it, and theirs what it takes their connections with."""
        workers = [worker for worker in self._ranks.workers() if worker.ready and not worker.is_leaving]
        for worker in workers if fds else ():
            worker.channel.send_now({"do": "give", "services": list(services)}, fds[:1])
        inboxes = self._assets.seats.inboxes
        child.channel.send_now({"do": "doors"}, [inboxes[worker.seat].send for worker in workers[:MAX_FDS]])

    def close(self) -> None:
        if self._plan_fd >= 0:
            os.close(self._plan_fd)
            self._plan_fd = -1

    @property
    def _child(self) -> Child | None:
        return self._ranks.named.get(HA)
