"""A commit on the supervisor's side: get what it needs, or refuse; then hand it out and take back what goes.

Control asks three times.  ``open`` gets listeners, addresses and stick tables, all or
nothing; nobody uses them yet.  ``probe`` has health judge new real servers.
``activate`` makes the candidate the running configuration: from here on every
process that starts gets it.  If control dies before, everything is put back as
it was, and only then control is started again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol

from lbfast._stick import StickTable
from lbfast.config.candidate import Candidate, unpack_candidate
from lbfast.config.errors import ConfigError
from lbfast.config.paths import state_dir
from lbfast.config.publish import Placed, publish_reals, publish_services
from lbfast.control.admin import restore_admin
from lbfast.control.catalog import catalog_of
from lbfast.control.engine import local_clock
from lbfast.health.plan import plan_checks
from lbfast.model.appliance import Config
from lbfast.supervisor.address_plan import WantedAddress
from lbfast.supervisor.addresses import AddressFaults
from lbfast.supervisor.channel import Message
from lbfast.supervisor.children import Child
from lbfast.supervisor.listeners import (
    Listener,
    ListenFaults,
    apply_options,
    close_listeners,
    deafen,
    doors_of,
    open_listeners,
    open_more,
    queued,
)
from lbfast.supervisor.netlink import IPAddress
from lbfast.supervisor.post import Post, in_parts
from lbfast.supervisor.shared import make_sticks
from lbfast.supervisor.start import Assets, workers_of
from lbfast.supervisor.web_door import WebDoor, open_web_door

EMPTY_WITHIN = 1.0  # for workers to accept what is queued on a listener that goes
PROBE_WITHIN = 5.0  # for the first verdicts on new real servers
ACK_WITHIN = 5.0  # then we go on without a worker that does not answer
_LOOK = 0.01


class Crew(Protocol):
    """The supervisor, as far as a commit needs it."""

    def workers(self) -> list[Child]: ...
    def control(self) -> Child | None: ...
    def replace_health(self) -> None: ...
    def tell_ha(self) -> None: ...
    def replace_web(self) -> None: ...
    def later(self, seconds: float, action: Callable[[], None]) -> None: ...
    def complain(self, text: str) -> None: ...
    def pin(self) -> None: ...
    def keep(self) -> None: ...
    def start_missing(self) -> None: ...
    def resize(self, places: Sequence[int], gone: Sequence[int], done: Callable[[str], None]) -> None: ...


@dataclass
class _Opened:
    """What ``open`` got, not yet in use."""

    candidate: Candidate
    listeners: list[Listener]
    sticks: dict[int, StickTable]
    addresses: list[IPAddress]
    more: dict[Listener, list[int]]  # sockets that open listeners lack for the new number of workers
    web: WebDoor | None = None  # a new place of the web interface
    is_probed: bool = False


@dataclass
class _Going:
    """What an activated commit gives up once no worker has it any more."""

    listeners: list[Listener]
    sticks: list[int]
    reals: list[int]
    services: list[int]
    addresses: list[IPAddress]
    cut: bool
    new_places: range
    gone_places: range
    looks: int = 0
    waiting: set[int] = field(default_factory=set)  # pids of workers that have not answered
    is_told: bool = False


class Switch:
    """One commit at a time."""

    def __init__(self, assets: Assets, crew: Crew, post: Post) -> None:
        self._assets = assets
        self._crew = crew
        self._post = post
        self._opened: _Opened | None = None
        self._going: _Going | None = None
        self._number = 0  # of the commit under way: timers name it, so that they keep nothing of it alive

    def forget(self) -> None:
        """In a new child: what is not in use yet, or no longer, is the supervisor's alone."""
        if self._opened is not None and self._opened.web is not None:
            self._opened.web.close()
        self._opened = self._going = None

    # --- control asks ---------------------------------------------------------

    def hear(self, message: Message, fds: Sequence[int]) -> None:
        """A message of control that begins with ``do``."""
        what = message.get("do")
        if what == "open" and fds:
            self._open(fds[0])
        elif what == "probe":
            self._probe()
        elif what == "activate":
            self._activate(cut=message.get("cut") is not False)
        elif what == "cancel":
            self._put_back(is_published=message.get("published") is True)

    @property
    def is_busy(self) -> bool:
        """A commit is under way."""
        return self._opened is not None or self._going is not None

    def _open(self, fd: int) -> None:
        if self._going is not None:
            self._refuse(["the commit before is not finished yet; try again"])
            return
        self._put_back(is_published=False)
        self._number += 1
        try:
            candidate = unpack_candidate(fd)
            self._opened = self._get(candidate)
        except ConfigError as error:
            self._refuse([str(problem) for problem in error.problems])
        except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            self._refuse([f"{type(error).__name__}: {error}"])
        else:
            sticks = self._opened.sticks
            for part, handles in in_parts(
                {"event": "opened"}, "sticks", list(sticks), [it.fd for it in sticks.values()]
            ):
                self._answer(part, handles)
            self._answer({"event": "opened", "last": True})

    def _get(self, candidate: Candidate) -> _Opened:
        """Everything, or an exception and nothing."""
        assets, placed, loaded = self._assets, candidate.placed, candidate.loaded
        here = {(it.spec.address, it.spec.port) for it in assets.listeners}
        specs = [spec for spec in placed.layout.listeners if (spec.address, spec.port) not in here]
        workers = workers_of(placed.config)
        _check_room(assets, workers)
        needed = (len(assets.listeners) + len(specs)) * max(workers, assets.workers) + 256
        if needed > assets.limits.descriptors:
            raise ValueError(f"{needed} open files needed for the listeners, {assets.limits.descriptors} allowed")
        positions = {service.label: (place, service) for place, service in enumerate(placed.config.virtual_services)}
        raised: list[IPAddress] = []
        try:
            raised = assets.addresses.raise_more(wanted_addresses(placed.config))
            listeners = open_listeners(
                specs,
                positions,
                max(workers, assets.workers),
                assets.listeners,
                free_bind=assets.addresses.may_be_elsewhere,
            )
        except (AddressFaults, ListenFaults) as error:
            assets.addresses.drop(raised)
            faults = sorted(error.faults, key=lambda fault: fault.service)
            raise ConfigError([loaded.problem(it.path, it.found, it.expected) for it in faults]) from None
        try:
            web = self._open_web(candidate)
        except ConfigError:
            close_listeners(listeners)
            assets.addresses.drop(raised)
            raise
        assets.spare += listeners
        more: dict[Listener, list[int]] = {}
        try:
            stays = {(it.address, it.port): it.label for it in placed.layout.listeners}
            for listener in assets.listeners:
                label = stays.get((listener.spec.address, listener.spec.port))
                if label is not None and len(listener.fds) < workers:
                    more[listener] = open_more(listener, positions[label][1], workers)
            sticks = make_sticks(placed.config, placed.layout, without=assets.shared.sticks)
        except BaseException:
            _close_fds(more)
            self._close(listeners)
            assets.addresses.drop(raised)
            raise
        return _Opened(candidate, listeners, sticks, raised, more, web)

    def _open_web(self, candidate: Candidate) -> WebDoor | None:
        """Where the web interface is to move; None when it stays where it is, or goes."""
        wanted, here = candidate.placed.config.web, self._assets.web
        if wanted is None or (here and here[0].is_at(wanted)):
            return None
        return open_web_door(wanted, candidate.loaded.problem, here[0] if here else None)

    def _probe(self) -> None:
        """Let health judge the new real servers before any client can be sent to them."""
        opened, assets = self._opened, self._assets
        if opened is None:
            return
        placed = opened.candidate.placed
        if plan_checks(assets.config, assets.layout) == plan_checks(placed.config, placed.layout):
            self._answer({"event": "probed"})
            return
        assets.probed = placed
        self._crew.replace_health()
        number = self._number
        self._crew.later(PROBE_WITHIN, lambda: self._go_on_without_verdicts(number))

    def on_verdicts(self) -> None:
        """Health has a verdict on every real server that it probes."""
        if self._opened is not None and self._assets.probed is not None and not self._opened.is_probed:
            self._opened.is_probed = True
            self._answer({"event": "probed"})

    def _go_on_without_verdicts(self, number: int) -> None:
        if self._number == number:
            self.on_verdicts()

    def _refuse(self, problems: list[str]) -> None:
        self._answer({"event": "refused", "problems": [problem[:2000] for problem in problems[:20]]})

    def _answer(self, message: Message, fds: Sequence[int] = ()) -> None:
        control = self._crew.control()
        if control is not None:
            self._post.send(control, message, fds)

    # --- back to where it was -------------------------------------------------

    def on_death(self, child: Child) -> None:
        """Before the replacement is forked."""
        if child.name == "control":
            self._put_back(is_published=True)
        self._got_answer(child)

    def _put_back(self, *, is_published: bool) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        assets, table = self._assets, self._assets.shared.table
        running, refused = Placed(assets.config, assets.layout), opened.candidate.placed
        if is_published:
            publish_reals(table, refused, running)
            publish_services(table, refused, running)
            restore_admin(state_dir(), catalog_of(running.config, running.layout), assets.shared, local_clock())
        for slot in set(refused.layout.services.values()) - set(running.layout.services.values()):
            table.clear_service(slot)
        for slot in set(refused.layout.reals.values()) - set(running.layout.reals.values()):
            table.clear_real(slot)
        if assets.probed is not None:
            assets.probed = None
            self._crew.replace_health()
        self._close(opened.listeners)
        _close_fds(opened.more)
        if opened.web is not None:
            opened.web.close()
        for failure in assets.addresses.drop(opened.addresses):
            self._crew.complain(failure)

    def _close(self, listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            self._assets.spare.remove(listener)
        close_listeners(listeners, for_good=True)

    # --- forward --------------------------------------------------------------

    def _activate(self, *, cut: bool) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        assets, placed = self._assets, opened.candidate.placed
        before = Placed(assets.config, assets.layout)
        going = self._plan_going(before, placed, cut)
        moved = self._take_over(opened, going)
        was_pinned = assets.config.pin_workers
        is_web_changed = assets.config.web != placed.config.web
        assets.config, assets.layout, assets.version = placed.config, placed.layout, opened.candidate.version
        assets.loaded = opened.candidate.loaded
        self._hand_out(opened, moved)
        self._crew.tell_ha()
        if was_pinned != assets.config.pin_workers:
            self._crew.pin()
        if is_web_changed:
            self._move_web(opened.web)
        assets.probed = None  # health works on this configuration already
        self._going = going
        for listener in going.listeners:
            deafen(listener)
        self._look()

    def _plan_going(self, before: Placed, after: Placed, cut: bool) -> _Going:
        stays = {(spec.address, spec.port) for spec in after.layout.listeners}
        needs = {after.layout.services[service.label] for service in after.config.virtual_services if service.has_table}
        addresses = {service.address for service in after.config.virtual_services}
        return _Going(
            listeners=[it for it in self._assets.listeners if (it.spec.address, it.spec.port) not in stays],
            sticks=[slot for slot in self._assets.shared.sticks if slot not in needs],
            reals=sorted(set(before.layout.reals.values()) - set(after.layout.reals.values())),
            services=sorted(set(before.layout.services.values()) - set(after.layout.services.values())),
            addresses=[it for it in self._assets.addresses.raised if str(it) not in addresses],
            cut=cut,
            new_places=range(self._assets.workers, workers_of(after.config)),
            gone_places=range(workers_of(after.config), self._assets.workers),
        )

    def _take_over(self, opened: _Opened, going: _Going) -> list[Listener]:
        """The candidate's listeners and tables become ours; the listeners that another service has now."""
        assets, placed = self._assets, opened.candidate.placed
        specs = {(spec.address, spec.port): spec for spec in placed.layout.listeners}
        services = {service.label: service for service in placed.config.virtual_services}
        kept: list[Listener] = []
        moved: list[Listener] = []
        for listener in assets.listeners:
            spec = specs.get((listener.spec.address, listener.spec.port))
            if spec is None:
                continue
            kept.append(Listener(spec, (*listener.fds, *opened.more.get(listener, ()))))
            if spec.service != listener.spec.service:
                moved.append(kept[-1])
            self._set_options(kept[-1], services[spec.label])
        for listener in opened.listeners:
            assets.spare.remove(listener)
        assets.spare += going.listeners
        assets.listeners[:] = kept + opened.listeners  # in place: the stop closes this list
        assets.shared.sticks.update(opened.sticks)
        for slot in going.sticks:
            del assets.shared.sticks[slot]
        return moved

    def _move_web(self, door: WebDoor | None) -> None:
        assets = self._assets
        if door is not None or assets.config.web is None:
            assets.close_web()
        if door is not None:
            assets.web.append(door)
        self._crew.replace_web()

    def _set_options(self, listener: Listener, service: Any) -> None:
        try:
            apply_options(listener, service)
        except OSError as error:
            self._crew.complain(f"{service.label}: options of its listeners: {error.strerror} {error.filename or ''}")

    def _hand_out(self, opened: _Opened, moved: Sequence[Listener]) -> None:
        """New tables first: a worker must have them when the first client comes."""
        slots = list(opened.sticks)
        moves = [[it.spec.address, it.spec.port, it.spec.service] for it in moved]
        for worker in self._crew.workers():
            places, handles = doors_of(opened.listeners, worker.index, self._assets.workers)
            parts = in_parts({"do": "listen"}, "sticks", slots, [it.fd for it in opened.sticks.values()])
            parts += in_parts({"do": "listen"}, "listeners", places, handles)
            parts += in_parts({"do": "listen"}, "moved", moves)
            for part, fds in parts:
                self._post.send(worker, part, fds)

    # --- what goes ------------------------------------------------------------

    def _look(self) -> None:
        """Until nothing is queued on the listeners that go, or for too long."""
        going = self._going
        if going is None:
            return
        going.looks += 1
        if going.looks * _LOOK < EMPTY_WITHIN and any(queued(listener) for listener in going.listeners):
            self._crew.later(_LOOK, self._look)
            return
        places = [[it.spec.address, it.spec.port] for it in going.listeners]
        going.waiting = {worker.pid for worker in self._crew.workers()}
        for worker in self._crew.workers():
            parts = in_parts({"do": "unlisten"}, "listeners", places) + in_parts(
                {"do": "unlisten"}, "sticks", going.sticks
            )
            for part, _ in parts:
                self._post.send(worker, part)
            self._post.send(worker, {"do": "unlisten", "last": True})
        going.is_told = True
        number = self._number
        self._crew.later(ACK_WITHIN, lambda: self._give_up_waiting(number))
        self._finish_when_answered()

    def on_switched(self, child: Child) -> None:
        """A worker has done all of the last commit."""
        self._got_answer(child)

    def _got_answer(self, child: Child) -> None:
        if self._going is not None:
            self._going.waiting.discard(child.pid)
            self._finish_when_answered()

    def _give_up_waiting(self, number: int) -> None:
        going = self._going
        if going is not None and self._number == number:
            self._crew.complain(f"{len(going.waiting)} workers did not answer to a commit within {ACK_WITHIN:g} s")
            going.waiting.clear()
            self._finish_when_answered()

    def _finish_when_answered(self) -> None:
        going = self._going
        if going is None or not going.is_told or going.waiting:
            return
        self._going = None
        table = self._assets.shared.table
        for slot in going.reals:
            table.clear_real(slot)
            if going.cut:
                table.cut(slot)
        for slot in going.services:
            table.clear_service(slot)
        self._close(going.listeners)
        for failure in self._assets.addresses.drop(going.addresses):
            self._crew.complain(failure)
        self._resize(going)

    def _resize(self, going: _Going) -> None:
        """More workers, or fewer: those that stay take the sockets of those that go."""
        assets = self._assets
        before = assets.workers
        assets.workers = before + len(going.new_places) - len(going.gone_places)
        if assets.workers == before:
            self._finished()
            return
        for worker in self._crew.workers():
            if worker.index < assets.workers:
                places, handles = doors_of(assets.listeners, worker.index, assets.workers)
                for part, fds in in_parts({"do": "listen"}, "listeners", places, handles):
                    self._post.send(worker, part, fds)
        self._crew.resize(going.new_places, going.gone_places, self._resized)

    def _resized(self, failure: str) -> None:
        if failure:
            self._crew.complain(f"workers: {failure}; it is tried again")
            self._crew.start_missing()
        self._finished()

    def _finished(self) -> None:
        self._crew.keep()
        self._answer({"event": "activated"})


def _check_room(assets: Assets, workers: int) -> None:
    """Fewer workers must be able to hold every connection that is open now."""
    counters = assets.shared.counters
    count = sum(counters.worker(seat)["connections"] for seat in range(counters.workers))
    room = workers * (assets.seats.room - assets.seats.room // 16)
    if workers < assets.workers and count > room:
        raise ValueError(f"workers: {workers} have room for {room} connections, {count} are open")


def _close_fds(more: dict[Listener, list[int]]) -> None:
    for fds in more.values():
        for fd in fds:
            os.close(fd)


def wanted_addresses(config: Config) -> list[WantedAddress]:
    """The addresses of every virtual service."""
    return [
        WantedAddress(position, ip_address(service.address), service.interface)
        for position, service in enumerate(config.virtual_services)
    ]
