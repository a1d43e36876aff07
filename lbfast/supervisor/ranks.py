"""Who runs: whoever has a name now, and workers that come or leave beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lbfast.supervisor.bodies import Bodies
from lbfast.supervisor.children import Child
from lbfast.supervisor.listeners import doors_of
from lbfast.supervisor.post import Post, in_parts
from lbfast.supervisor.start import Assets

FORWARD_AGAIN = 1.2  # a worker that was asleep may have put something into an inbox just before it was told


class Fork(Protocol):
    """Starts a process; ``beside``: its predecessor still runs."""

    def __call__(self, name: str, seat: int, *, beside: bool = False) -> Child | None: ...


@dataclass
class Ranks:
    """``fork(name, seat)`` starts a process, or says itself why not; ``later`` and ``note`` as the supervisor's.

    ``keep`` writes down who there is: if this supervisor is killed now, the next one must know of everybody.
    """

    assets: Assets
    bodies: Bodies
    post: Post
    fork: Fork
    later: Callable[[float, Callable[[], None]], None]
    note: Callable[[str], None]
    keep: Callable[[], None]
    named: dict[str, Child] = field(default_factory=dict)
    others: dict[int, Child] = field(default_factory=dict)  # by pid
    seat_of: dict[int, int] = field(default_factory=dict)  # by place: what a successor after a death goes on with

    def everybody(self) -> list[Child]:
        return [*self.named.values(), *self.others.values()]

    def workers(self) -> list[Child]:
        """Those that come and leave, too."""
        return [child for child in self.everybody() if child.index >= 0]

    @property
    def places(self) -> range:
        """Of the workers."""
        return range(self.assets.workers)

    def start(self, name: str) -> bool:
        """Somebody for a name that nobody has; a worker on its predecessor's seat."""
        if name in self.named or name not in self.bodies.names:
            return False
        child = self.fork(name, self._seat(self.bodies.index(name)))
        if child is not None:
            self.named[name] = child
        return child is not None

    def lose(self, seat: int) -> None:
        """A worker died while nobody looked, and was repaired after."""
        self.assets.seats.vacate(seat)
        self.seat_of = {place: it for place, it in self.seat_of.items() if it != seat}

    def adopt(self, child: Child, *, apart: bool = False) -> None:
        """A process of the program before us; ``apart``: its memory is not ours."""
        if apart and child.index >= 0:
            child.is_leaving, child.seat = True, -1
        if child.name in self.named:
            child.is_leaving = True  # one that came beside another, whose supervisor was killed before it had the name
        if child.is_leaving and child.index >= 0:
            self.others[child.pid] = child
        else:
            self.named[child.name] = child
            if child.index >= 0:
                self.seat_of[child.index] = child.seat

    def remove(self, child: Child) -> bool:
        """It is dead.  Whether it had no name any more, or none yet: then its seat is vacant now."""
        if self.others.pop(child.pid, None) is None:
            del self.named[child.name]
            return False
        if child.seat >= 0:
            self._vacate(child.seat)
        return True

    # --- for a relief ---------------------------------------------------------

    def come(self, place: int) -> Child | None:
        seat = self._take(place)
        child = self.fork(self.bodies.worker_name(place), seat)
        if child is None:
            self.assets.seats.vacate(seat)
            return None
        self.others[child.pid] = child
        self.keep()
        return child

    def promote(self, child: Child) -> Child | None:
        old = self.dismiss(child.index)
        del self.others[child.pid]
        self.named[child.name] = child
        self.seat_of[child.index] = child.seat
        self.keep()
        return old

    def dismiss(self, place: int) -> Child | None:
        old = self.named.pop(self.bodies.worker_name(place), None)
        self.seat_of.pop(place, None)
        if old is not None:
            old.is_leaving = True
            self.others[old.pid] = old
        return old

    def come_beside(self, name: str) -> Child | None:
        """A successor of somebody who is no worker."""
        child = self.fork(name, -1, beside=True)
        if child is not None:
            self.others[child.pid] = child
            self.keep()
        return child

    def succeed(self, child: Child) -> Child | None:
        """It has its name from now on; who had it before, if anybody."""
        old = self.named.pop(child.name, None)
        if old is not None:
            old.is_leaving = True
            self.others[old.pid] = old
        del self.others[child.pid]
        self.named[child.name] = child
        return old

    def tell_begin(self, name: str) -> None:
        """Its predecessor is gone."""
        child = self.named.get(name)
        if child is not None:
            self.post.send(child, {"do": "begin"})

    def tell_leave(self, child: Child, to: Sequence[Child]) -> None:
        self.post.send(child, {"do": "leave", "to": [it.seat for it in to]})

    def tell_rest_leave(self) -> None:
        """Workers without a name that a killed supervisor has left: those that have one take their connections."""
        to = [child for child in self.named.values() if child.index >= 0]
        for child in self.others.values():
            if child.index >= 0 and child.seat >= 0:
                self.tell_leave(child, to)

    def tell_leave_apart(self, child: Child, to: Sequence[Child]) -> None:
        """Its memory is another one: it knows nothing of their inboxes."""
        inboxes = self.assets.seats.inboxes
        for part, fds in in_parts(
            {"do": "leave", "apart": True}, "to", [it.seat for it in to], [inboxes[it.seat].send for it in to]
        )[:1]:
            self.post.send(child, part, fds)

    def open_doors(self) -> None:
        """Workers that came without listeners get them."""
        self.assets.is_shut = False
        for worker in self.workers():
            places, handles = doors_of(self.assets.listeners, worker.index, self.assets.workers)
            for part, fds in in_parts({"do": "listen"}, "listeners", places, handles):
                self.post.send(worker, part, fds)

    def pin(self) -> None:
        """Tell each worker which cores it may use."""
        for worker in self.workers():
            core = self.bodies.core(worker.index)
            self.post.send(worker, {"do": "pin", "cores": self.bodies.cores if core is None else [core]})

    # --- seats ----------------------------------------------------------------

    def _seat(self, place: int) -> int:
        if place >= 0 and place not in self.seat_of:
            self.seat_of[place] = self._take(place)
        return self.seat_of.get(place, -1)

    def _take(self, place: int) -> int:
        seats = self.assets.seats
        known = len(seats.inboxes)
        seat = seats.take(place)
        if seat >= known:
            self.introduce(seat)
        return seat

    def introduce_vacant(self) -> None:
        """Whoever had these seats is gone, and the inboxes are new ones: what is sent to the old reaches nobody."""
        seated = {worker.seat for worker in self.workers()}
        for seat in range(len(self.assets.seats.inboxes)):
            if seat not in seated:
                self.introduce(seat)

    def introduce(self, seat: int) -> None:
        """Nobody knows of this one yet, or not of its inbox."""
        slab, ring = self.assets.shared.slabs[seat].fd, self.assets.shared.rings[seat].fd
        inbox = self.assets.seats.inboxes[seat].send
        for worker in self.workers():
            self.post.send(worker, {"do": "meet", "seat": seat}, [slab, inbox, ring])
        control = self.named.get("control")
        if control is not None:
            self.post.send(control, {"event": "seat", "seat": seat}, [slab, ring])

    def _vacate(self, seat: int) -> None:
        """What still came into the inbox of a worker that is gone goes to the others, now and a little later."""
        seats = self.assets.seats
        seats.vacate(seat)

        def forward() -> None:
            if seat not in seats.taken:
                seats.forward(seat, [child.seat for child in self.named.values() if child.seat >= 0])

        forward()
        self.later(FORWARD_AGAIN, forward)
