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
        self._note: dict[str, object] = {}  # of connections that change boxes just now (ha/note.py)
        self._note_fd = -1
        self._entrusted: list[int] = []  # ... sockets, of which the note knows nothing yet

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
            self._open_doors(child, message, fds)
            return True
        if child.name == HA and message.get("event") == "moving":
            self._keep_note(message, fds)
            return True
        if child.name == HA and message.get("event") == "entrust":
            self._keep_sockets(fds)
            return True
        if child.name == HA and message.get("event") == "recover":
            self._hand_note(child)
            return True
        if child.name == HA and message.get("event") == "pair":
            self._on_pair(child, message)
            return True
        if child.name == "control" and message.get("do") == "start_ha":
            self._ranks.bodies.want_ha()
            return True
        return False

    def _on_pair(self, child: Child, message: Message) -> None:
        """The ha process has a pair now, has none any more, or takes the addresses although it has none."""
        self._note["arrived"] = self._note.get("arrived") or message.get("active") is True
        addresses, config = self._assets.addresses, self._assets.config
        if message.get("paired") and not addresses.is_paired:
            addresses.hand_over()
        elif not message.get("paired") and addresses.may_be_elsewhere:
            was_paired, trouble = addresses.is_paired, ""
            try:
                addresses.take_back(wanted_addresses(config), hold=message.get("active") is True)
            except AddressFaults as error:
                trouble = str(error)
            if trouble and was_paired:
                self._complain(f"the service addresses cannot be kept: {trouble}")
            child.channel.send_now({"do": "raised", "trouble": trouble})

    def _open_doors(self, child: Child, message: Message, fds: Sequence[int]) -> None:
        """A takeover: the workers' inboxes for it, and theirs what it takes their connections with."""
        ready = [worker for worker in self._ranks.workers() if worker.ready]
        for worker in ready if fds else ():
            worker.channel.send_now({**message, "do": "give"}, fds[:1])
        seats = [worker.seat for worker in ready if not worker.is_leaving]
        inboxes = self._assets.seats.inboxes
        child.channel.send_now({"do": "doors"}, [inboxes[seat].send for seat in seats[:MAX_FDS]])

    def _keep_note(self, message: Message, fds: Sequence[int]) -> None:
        """Connections are in the ha process's hands, or none are any more; should it die, its successor asks."""
        if self._note_fd >= 0:
            os.close(self._note_fd)
            self._note_fd = -1
        self._keep_sockets(())
        if fds:
            self._note_fd = os.dup(fds[0])
            self._note = {"do": "recover", "role": message.get("role"), "at": message.get("at"), "arrived": False}

    def _keep_sockets(self, fds: Sequence[int]) -> None:
        for fd in self._entrusted:
            os.close(fd)
        self._entrusted = [os.dup(fd) for fd in fds]

    def _hand_note(self, child: Child) -> None:
        if self._note_fd >= 0:
            self._complain("the ha process died while connections changed boxes: its successor goes on")
            child.channel.send_now(self._note, [self._note_fd, *self._entrusted])
            self._keep_note({}, ())

    def close(self) -> None:
        if self._plan_fd >= 0:
            os.close(self._plan_fd)
            self._plan_fd = -1

    def forget(self) -> None:
        """In a new child: a frozen socket that it held beside us would be there for as long as it lives."""
        self.close()
        self._keep_note({}, ())

    @property
    def _child(self) -> Child | None:
        return self._ranks.named.get(HA)
