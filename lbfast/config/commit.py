"""From the running configuration to a candidate: the steps in order, and the candidate's slots.  Pure.

What stays keeps its slot, and with it everything in shared memory: health, admin
state, live counts, entries of the stick table.  A service is the same one if its
id is; a real server, if its id and its service's are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel

from lbfast.config.ids import Key, KnownIds
from lbfast.config.layout import Layout, ListenerSpec, too_large
from lbfast.config.steps import (
    AddReal,
    AddService,
    ChangeCheck,
    ChangeLog,
    ChangePair,
    ChangeReal,
    ChangeService,
    ChangeUpkeep,
    ChangeWeb,
    ChangeWorkers,
    CloseListener,
    MoveListener,
    OpenListener,
    RemoveReal,
    RemoveService,
    Step,
)
from lbfast.model.appliance import Config, WebSettings
from lbfast.model.service import FALLBACK_LABEL, FallbackServer, RealServer, VirtualService

_UPKEEP = ("alerts", "backup", "graphs")
MOST_SERVICES = 4_096
MOST_REALS = 32_768
_REST = 4  # as many times the slots in use are gone through before one is used again
_LEAST_ROUND = 256

RealKey = tuple[UUID, UUID, bool]
"""(service id, real server id, is fallback)."""
S = TypeVar("S", bound=Step)


@dataclass(frozen=True)
class Plan:
    """``steps`` in the order in which they are taken; ``layout`` is the candidate's."""

    steps: tuple[Step, ...]
    layout: Layout

    def of(self, kind: type[S]) -> list[S]:
        """The steps of one kind."""
        return [step for step in self.steps if isinstance(step, kind)]


class PlanError(Exception):
    """A candidate that is valid in itself but cannot become the running configuration."""


@dataclass(frozen=True)
class _Real:
    service: VirtualService
    label: str
    server: RealServer | FallbackServer
    slot: int


def plan_commit(
    running: Config,
    running_layout: Layout,
    candidate: Config,
    busy_services: Collection[int] = (),
    busy_reals: Collection[int] = (),
) -> Plan:
    """What to do.  Both configurations have ids on everything; PlanError when the tables are too small.

    ``busy_*`` are free slots that still have connections: they are not given to anybody.
    """
    services = _services(running)
    reals = {_key(it): it for it in _reals(running, running_layout)}
    layout = _layout(running_layout, services, reals, candidate, busy_services, busy_reals)
    new_reals = {_key(it): it for it in _reals(candidate, layout)}
    new_services = _services(candidate)
    opened, moved, closed = _listener_steps(running_layout, layout)
    steps: list[Step] = [*opened]
    steps += [
        AddService(it.label, layout.services[it.label]) for key, it in new_services.items() if key not in services
    ]
    steps += [AddReal(it.service.label, it.label, it.slot) for key, it in new_reals.items() if key not in reals]
    steps += _changed_reals(reals, new_reals)
    steps += _changed_services(services, new_services, layout)
    steps += [*moved, *closed]
    steps += [
        RemoveReal(it.service.label, it.label, it.slot, running_layout.services[it.service.label])
        for key, it in reals.items()
        if key not in new_reals
    ]
    steps += [
        RemoveService(it.label, running_layout.services[it.label])
        for key, it in services.items()
        if key not in new_services
    ]
    steps += _changed_rest(running, candidate)
    return Plan(tuple(steps), layout)


def ids_of(config: Config) -> KnownIds:
    """The identities that a configuration has, by label: what a candidate takes over."""
    known: dict[Key, UUID] = {}
    for service in config.virtual_services:
        known[service.label, ""] = _id(service)
        for label, server in servers_of(service):
            known[service.label, label] = _id(server)
    return KnownIds(known)


def servers_of(service: VirtualService) -> Iterator[tuple[str, RealServer | FallbackServer]]:
    """(label, server) of each real server, the fallback server last."""
    for real in service.real_servers:
        yield real.label, real
    if service.fallback_server is not None:
        yield FALLBACK_LABEL, service.fallback_server


def changed_keys(before: BaseModel, after: BaseModel, without: Collection[str] = ()) -> tuple[str, ...]:
    """The keys whose values differ, as the file calls them."""
    return tuple(
        field.alias or name
        for name, field in type(after).model_fields.items()
        if name not in without and getattr(before, name) != getattr(after, name)
    )


def _layout(
    running: Layout,
    services: Mapping[UUID, VirtualService],
    reals: Mapping[RealKey, _Real],
    candidate: Config,
    busy_services: Collection[int],
    busy_reals: Collection[int],
) -> Layout:
    count = sum(len(list(servers_of(service))) for service in candidate.virtual_services)
    free_services = _Free(
        {*running.services.values(), *busy_services},
        running.next_service,
        len(candidate.virtual_services),
        MOST_SERVICES,
    )
    free_reals = _Free({*running.reals.values(), *busy_reals}, running.next_real, count, MOST_REALS)
    new_services: dict[str, int] = {}
    new_reals: dict[tuple[str, str], int] = {}
    listeners: list[ListenerSpec] = []
    for service in candidate.virtual_services:
        known = services.get(_id(service))
        slot = running.services[known.label] if known else free_services.take()
        new_services[service.label] = slot
        for label, server in servers_of(service):
            stays = reals.get(_key_of(service, server))
            new_reals[service.label, label] = stays.slot if stays else free_reals.take()
        listeners += [ListenerSpec(slot, service.label, service.address, port) for port in service.port_numbers]
    layout = Layout(new_services, new_reals, tuple(listeners), free_services.cursor, free_reals.cursor)
    if reason := too_large(layout, MOST_SERVICES, MOST_REALS):
        raise PlanError(reason)
    return layout


class _Free:
    """Free slots, from a cursor on and round: what was given up comes again as late as possible."""

    def __init__(self, taken: Collection[int], cursor: int, wanted: int, most: int) -> None:
        self._taken = set(taken)
        # Not over the whole table: each slot that was ever used costs memory.
        self._most = min(most, max(_LEAST_ROUND, _REST * (len(self._taken) + wanted), max(taken, default=0) + 1))
        self.cursor = cursor

    def take(self) -> int:
        for turn in range(self._most):
            slot = (self.cursor + turn) % self._most
            if slot not in self._taken:
                self._taken.add(slot)
                self.cursor = slot + 1
                return slot
        raise PlanError(f"{self._most} slots are in use or were until now; remove first, then add in a second commit")


def _listener_steps(
    running: Layout, candidate: Layout
) -> tuple[list[OpenListener], list[MoveListener], list[CloseListener]]:
    before = {(spec.address, spec.port): spec for spec in running.listeners}
    after = {(spec.address, spec.port): spec for spec in candidate.listeners}
    opened = [OpenListener(it.label, *place, it.service) for place, it in after.items() if place not in before]
    closed = [CloseListener(it.label, *place, it.service) for place, it in before.items() if place not in after]
    moved = [
        MoveListener(it.label, *place, it.service, before[place].label)
        for place, it in after.items()
        if place in before and before[place].service != it.service
    ]
    return opened, moved, closed


def _changed_reals(before: Mapping[RealKey, _Real], after: Mapping[RealKey, _Real]) -> Iterator[ChangeReal]:
    for key, real in after.items():
        old = before.get(key)
        if old is not None and (keys := changed_keys(old.server, real.server)):
            yield ChangeReal(real.service.label, real.label, real.slot, keys, old.label)


def _changed_services(
    before: Mapping[UUID, VirtualService], after: Mapping[UUID, VirtualService], layout: Layout
) -> Iterator[Step]:
    for identity, service in after.items():
        old = before.get(identity)
        if old is None:
            continue
        slot = layout.services[service.label]
        keys = changed_keys(old, service, ("id", "real_servers", "fallback_server", "health_check"))
        stays = {*_order(old)} & {*_order(service)}
        if [it for it in _order(old) if it in stays] != [it for it in _order(service) if it in stays]:
            keys += ("order of real servers",)
        if keys:
            yield ChangeService(service.label, slot, keys, old.label)
        if keys := changed_keys(old.health_check, service.health_check):
            yield ChangeCheck(service.label, slot, keys)


def _order(service: VirtualService) -> list[UUID]:
    return [_id(real) for real in service.real_servers]


def _changed_rest(running: Config, candidate: Config) -> Iterator[Step]:
    if keys := changed_keys(running.log, candidate.log):
        yield ChangeLog("", keys)
    if keys := changed_keys(running.ha, candidate.ha):
        yield ChangePair("", keys)
    if running.web != candidate.web:
        yield ChangeWeb("", _web_keys(running.web, candidate.web))
    if keys := tuple(key for key in _UPKEEP if getattr(running, key) != getattr(candidate, key)):
        yield ChangeUpkeep("", keys)
    if keys := changed_keys(running, candidate, ("log", "ha", "web", *_UPKEEP, "virtual_services")):
        yield ChangeWorkers("", keys)


def _web_keys(before: WebSettings | None, after: WebSettings | None) -> tuple[str, ...]:
    """None when it is switched off."""
    if after is None:
        return ()
    return changed_keys(before, after) if before else ("switched on",)


def _services(config: Config) -> dict[UUID, VirtualService]:
    return {_id(service): service for service in config.virtual_services}


def _reals(config: Config, layout: Layout) -> Iterable[_Real]:
    for service in config.virtual_services:
        for label, server in servers_of(service):
            yield _Real(service, label, server, layout.reals[service.label, label])


def _key(real: _Real) -> RealKey:
    return _key_of(real.service, real.server)


def _key_of(service: VirtualService, server: RealServer | FallbackServer) -> RealKey:
    return _id(service), _id(server), isinstance(server, FallbackServer)


def _id(owner: VirtualService | RealServer | FallbackServer) -> UUID:
    if owner.id is None:
        raise ValueError(f"{owner!r} has no id: assign_ids comes before plan_commit")
    return owner.id
