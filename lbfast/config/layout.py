"""Which slot of shared memory each virtual service and real server gets, and what is listened on.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from lbfast.model.appliance import Config
from lbfast.model.service import FALLBACK_LABEL


@dataclass(frozen=True)
class ListenerSpec:
    """One address and port to accept on; every worker has a socket of its own for it."""

    service: int
    label: str
    address: str
    port: int


@dataclass(frozen=True)
class Layout:
    """Slots by label."""

    services: dict[str, int]
    reals: dict[tuple[str, str], int]
    """(service label, real server label) -> slot; the fallback server has the label "fallback"."""
    listeners: tuple[ListenerSpec, ...]
    next_service: int = field(default=0, compare=False)
    next_real: int = field(default=0, compare=False)
    """Where a commit begins to look for a free slot, so that one just given up rests for as long as possible."""


def plan_layout(config: Config) -> Layout:
    """Slots in the order of the configuration, a fallback server after the real servers of its service."""
    services: dict[str, int] = {}
    reals: dict[tuple[str, str], int] = {}
    listeners: list[ListenerSpec] = []
    free = count()
    for slot, service in enumerate(config.virtual_services):
        services[service.label] = slot
        for real in service.real_servers:
            reals[service.label, real.label] = next(free)
        if service.fallback_server is not None:
            reals[service.label, FALLBACK_LABEL] = next(free)
        listeners += [ListenerSpec(slot, service.label, service.address, port) for port in service.port_numbers]
    return Layout(services, reals, tuple(listeners), len(services), len(reals))


def too_large(layout: Layout, most_services: int, most_reals: int) -> str | None:
    """Why a layout does not fit into the table, in words; None when it fits."""
    if len(layout.services) > most_services:
        return f"{len(layout.services)} virtual services, where the table holds {most_services}"
    if len(layout.reals) > most_reals:
        return f"{len(layout.reals)} real and fallback servers, where the table holds {most_reals}"
    return None
