"""Estate: everything a supervisor passes on to the next one, as plain facts and named descriptors.

Written by one version of the program and read by the next.  Facts are only ever added;
whoever reads takes what it knows and has a default for what is missing.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbfast import __version__
from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._journal import Journal
from lbfast._ring import Ring
from lbfast._stick import StickTable
from lbfast._table import Table
from lbfast.config.candidate import Candidate, pack_candidate, unpack_candidate
from lbfast.config.layout import ListenerSpec
from lbfast.config.paths import runtime_dir
from lbfast.config.publish import Placed
from lbfast.health.results import ProbeResults
from lbfast.supervisor.channel import Channel, Message
from lbfast.supervisor.children import Child
from lbfast.supervisor.ha_addresses import AddressOwner
from lbfast.supervisor.ha_body import address_owner
from lbfast.supervisor.limits import WorkerLimits
from lbfast.supervisor.listeners import Listener, close_listeners
from lbfast.supervisor.lock import Lock
from lbfast.supervisor.seats import Inbox, Seats
from lbfast.supervisor.shared import JOURNAL_ROOM, MOST_WRITERS, WAKES, Shared, memory_of
from lbfast.supervisor.start import Assets, close_doors, rights_of
from lbfast.supervisor.web_door import WebDoor


@dataclass
class Estate:
    """``fds``: by name; who takes the estate owns them."""

    facts: dict[str, Any]
    fds: dict[str, int] = field(default_factory=dict)

    def pack(self) -> int:
        """A memfd that holds facts and descriptor numbers; the caller closes it."""
        fd = os.memfd_create("estate", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb", closefd=False) as stream:
            stream.write(json.dumps({"facts": self.facts, "fds": self.fds}).encode())
        return fd

    @classmethod
    def unpack(cls, fd: int) -> Estate:
        document = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        return cls(dict(document["facts"]), {str(name): int(number) for name, number in document["fds"].items()})


@dataclass(frozen=True)
class Heritage:
    """What runs already when a program takes over, and whom it owes an answer."""

    children: Sequence[Child]
    events: Sequence[Message]
    version: str  # of the program before
    number: int  # of control's request, 0 when nobody waits
    old_inboxes: Sequence[Inbox] = ()  # of workers whose memory is another one
    dead: Sequence[tuple[int, int]] = ()  # seat and pid of workers that died while nobody looked
    is_regained: bool = False  # the supervisor before was killed


def describe(assets: Assets, children: Iterable[Child], events: Sequence[Message]) -> Estate:
    """What there is now.  The descriptors stay ours; ``running`` is new, and to be closed by the caller."""
    fds = memory_of(assets.shared)
    for seat, inbox in enumerate(assets.seats.inboxes):
        fds |= {f"inbox.{seat}.receive": inbox.receive, f"inbox.{seat}.send": inbox.send}
    for number, listener in enumerate(assets.listeners):
        fds |= {f"listener.{number}.{turn}": fd for turn, fd in enumerate(listener.fds)}
    for number, door in enumerate(assets.web):
        fds[f"web.{number}"] = door.fd
    for number, lock in enumerate(assets.locks):
        fds[f"lock.{number}"] = lock.fileno()
    people = []
    for child in children:
        people.append([child.name, child.index, child.seat, child.pid, child.ready, child.is_leaving, child.connected])
        if child.connected:
            fds[f"channel.{child.pid}"] = child.channel.fileno()
    running = Candidate(assets.loaded, Placed(assets.config, assets.layout), assets.version)
    fds["running"] = pack_candidate(running)
    limits = assets.limits
    facts = {
        "config_path": os.fspath(assets.config_path),
        "workers": assets.workers,
        "limits": [limits.descriptors, limits.connections, limits.pipes],
        "seats": [[seat, place] for seat, place in assets.seats.taken.items()],
        "last": [[seat, place] for seat, place in assets.seats.last.items()],
        "sticks": list(assets.shared.sticks),
        "slabs": len(assets.shared.slabs),
        "listeners": [
            [it.spec.service, it.spec.label, it.spec.address, it.spec.port, len(it.fds)] for it in assets.listeners
        ],
        "web": [[door.address, door.port] for door in assets.web],
        "locks": [[os.fspath(lock.path), lock.variable] for lock in assets.locks],
        "children": people,
        "version": __version__,
        "number": 0,
        "events": list(events),
    }
    return Estate(facts, fds)


def adopt(estate: Estate) -> Assets:
    """Assets that go on with all of it; ValueError, KeyError or ConfigError when that cannot be done."""
    facts, fds = estate.facts, estate.fds
    running = unpack_candidate(fds["running"])
    shared = _adopt_shared(facts, fds)
    limits = WorkerLimits(*facts["limits"])
    seats = Seats(shared, limits.connections)
    seats.inboxes = [Inbox(fds[f"inbox.{seat}.receive"], fds[f"inbox.{seat}.send"]) for seat in range(facts["slabs"])]
    seats.numbers = list(facts.get("numbers", ()))
    seats.taken.update((int(seat), int(place)) for seat, place in facts["seats"])
    seats.last.update((int(seat), int(place)) for seat, place in facts["last"])
    addresses = address_owner()
    addresses.adopt()
    listeners = adopt_listeners(facts, fds)
    locks = [Lock(Path(path), variable, fds[f"lock.{at}"]) for at, (path, variable) in enumerate(facts["locks"])]
    web = [WebDoor(address, port, fds[f"web.{at}"]) for at, (address, port) in enumerate(facts.get("web", ()))]
    privileges, access = rights_of(running.loaded)
    config_path = Path(facts["config_path"])
    placed = running.placed
    return Assets(
        config_path=config_path,
        loaded=running.loaded,
        config=placed.config,
        layout=placed.layout,
        workers=facts["workers"],
        limits=limits,
        shared=shared,
        listeners=listeners,
        seats=seats,
        addresses=addresses,
        children_record=runtime_dir() / "children.json",
        locks=locks,
        privileges=privileges,
        access=access,
        web=web,
        version=running.version,
        owned=_owned(locks, runtime_dir() / "children.json", addresses, listeners, web, seats),
    )


def adopt_heritage(estate: Estate, now: float) -> Heritage:
    facts = estate.facts
    dead = [(int(seat), int(pid)) for seat, pid in facts.get("dead", ())]
    return Heritage(
        adopt_children(estate, now),
        facts["events"],
        str(facts["version"]),
        int(facts["number"]),
        (),
        dead,
        "dead" in facts,
    )


def adopt_inboxes(estate: Estate) -> list[Inbox]:
    """Of the workers whose memory was left."""
    fds = estate.fds
    return [
        Inbox(fds[f"inbox.{seat}.receive"], fds[f"inbox.{seat}.send"])
        for seat in range(estate.facts.get("old_inboxes", 0))
    ]


def adopt_children(estate: Estate, now: float) -> list[Child]:
    """The processes that run, dead ones that nobody has reaped included."""
    found = []
    for name, index, seat, pid, ready, is_leaving, connected in estate.facts["children"]:
        channel = Channel(socket.socket(fileno=estate.fds[f"channel.{pid}"])) if connected else Channel.pair()[0]
        child = Child(name, index, pid, os.pidfd_open(pid), channel, now, seat, ready, connected, is_leaving)
        found.append(child)
    return found


def adopt_listeners(facts: Mapping[str, Any], fds: Mapping[str, int]) -> list[Listener]:
    return [
        Listener(ListenerSpec(service, label, address, port), tuple(fds[f"listener.{at}.{turn}"] for turn in range(n)))
        for at, (service, label, address, port, n) in enumerate(facts["listeners"])
    ]


def _adopt_shared(facts: Mapping[str, Any], fds: dict[str, int]) -> Shared:
    counters = Counters.attach(fds["counters"])
    shared = Shared(
        table=Table.attach(fds["table"]),
        counters=counters,
        sticks={int(slot): StickTable.attach(fds[f"stick.{slot}"]) for slot in facts["sticks"]},
        slabs=[Slab.attach(fds[f"slab.{seat}"]) for seat in range(facts["slabs"])],
        rings=[Ring.attach(fds[f"ring.{seat}"]) for seat in range(facts["slabs"])],
        results=ProbeResults.attach(fds["results"]),
        # A new one: what the old program's workers still note is made good by the resync of the new ha process.
        journal=Journal.create(MOST_WRITERS, JOURNAL_ROOM),
        **{name: fds[name] if name in fds else os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for name in WAKES},
    )
    for name in memory_of(shared):
        if name not in WAKES:
            os.close(fds.pop(name))  # attach has its own
    os.close(fds.pop("running"))
    return shared


def _owned(
    locks: Sequence[Lock],
    record: Path,
    addresses: AddressOwner,
    listeners: list[Listener],
    web: list[WebDoor],
    seats: Seats,
) -> ExitStack:
    """What is given back when this supervisor stops, in the order of ``start.prepare``."""
    owned = ExitStack()
    for lock in locks:
        owned.callback(lock.release)
    owned.callback(lambda: record.unlink(missing_ok=True))
    owned.callback(addresses.drop_all)
    owned.callback(close_listeners, listeners)
    owned.callback(close_doors, web)
    owned.callback(seats.close)
    return owned
