"""The settings of a configuration, written into shared memory where workers read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from lbfast.config.layout import Layout, too_large
from lbfast.model.appliance import Config
from lbfast.model.service import FALLBACK_LABEL, FallbackServer, RealServer, VirtualService

if TYPE_CHECKING:
    from lbfast._table import RealSettings, ServiceSettings

_SEND_PROXY = {"none": 0, "v1": 1, "v2": 2}


class SettingsTable(Protocol):
    """What publishing needs of ``_table.Table``."""

    @property
    def MAX_SERVICES(self) -> int: ...
    @property
    def MAX_REALS(self) -> int: ...
    def write_service(self, slot: int, settings: ServiceSettings) -> None: ...
    def write_real(self, slot: int, settings: RealSettings) -> None: ...


@dataclass(frozen=True)
class Placed:
    """A configuration with ids, and its slots."""

    config: Config
    layout: Layout


def publish(table: SettingsTable, config: Config, layout: Layout) -> None:
    """Write every real server and every service; ValueError when something does not fit.

    Real servers go first: a running worker must never see a service that names a
    slot without a server.  Identities must have been assigned.
    """
    if reason := too_large(layout, table.MAX_SERVICES, table.MAX_REALS):
        raise ValueError(reason)
    for service in config.virtual_services:
        slot = layout.services[service.label]
        for real in service.real_servers:
            table.write_real(layout.reals[service.label, real.label], real_settings(slot, service.label, real))
        if service.fallback_server is not None:
            settings = fallback_settings(slot, service.label, service.fallback_server)
            table.write_real(layout.reals[service.label, FALLBACK_LABEL], settings)
        table.write_service(slot, service_settings(service, layout))


def publish_reals(
    table: SettingsTable, before: Placed, after: Placed, weights: Mapping[bytes, int] | None = None
) -> None:
    """Write the real servers that are new or changed; ``weights`` are operators' own, by id."""
    old = dict(_all_reals(before))
    for slot, settings in _all_reals(after):
        if old.get(slot) != settings:
            weight = (weights or {}).get(settings["id"])
            table.write_real(slot, settings if weight is None else {**settings, "weight": weight})


def publish_new_reals(table: SettingsTable, before: Placed, after: Placed) -> None:
    """Write the real servers that are new: until a service names them they can be probed, and get no client."""
    known = set(before.layout.reals.values())
    for slot, settings in _all_reals(after):
        if slot not in known:
            table.write_real(slot, settings)


def publish_services(table: SettingsTable, before: Placed, after: Placed) -> None:
    """Write the virtual services that are new or changed.  Their real servers must have been written."""
    old = dict(_all_services(before))
    for slot, settings in _all_services(after):
        if old.get(slot) != settings:
            table.write_service(slot, settings)


def _all_reals(placed: Placed) -> Iterator[tuple[int, RealSettings]]:
    for service in placed.config.virtual_services:
        slot = placed.layout.services[service.label]
        for real in service.real_servers:
            yield placed.layout.reals[service.label, real.label], real_settings(slot, service.label, real)
        if service.fallback_server is not None:
            place = placed.layout.reals[service.label, FALLBACK_LABEL]
            yield place, fallback_settings(slot, service.label, service.fallback_server)


def _all_services(placed: Placed) -> Iterator[tuple[int, ServiceSettings]]:
    for service in placed.config.virtual_services:
        yield placed.layout.services[service.label], service_settings(service, placed.layout)


def real_settings(service: int, service_label: str, real: RealServer) -> RealSettings:
    return {
        "id": _identity(real.id, f"{service_label} / {real.label}"),
        "service": service,
        "address": real.address,
        "port": real.port or 0,
        "weight": real.weight,
        "max_connections": real.max_connections,
        "slow_start_ms": real.slow_start,
        "is_fallback": False,
    }


def fallback_settings(service: int, service_label: str, fallback: FallbackServer) -> RealSettings:
    return {
        "id": _identity(fallback.id, f"{service_label} / {FALLBACK_LABEL}"),
        "service": service,
        "address": fallback.address,
        "port": fallback.port or 0,
        "weight": 1,  # it is alone; no scheduler compares it
        "max_connections": 0,
        "slow_start_ms": 0,
        "is_fallback": True,
    }


def service_settings(service: VirtualService, layout: Layout) -> ServiceSettings:
    return {
        "id": _identity(service.id, service.label),
        "scheduler": int(service.scheduler),
        "persistence": int(service.persistence.mode),
        "persistence_timeout_ms": service.persistence.timeout,
        "mask_v4": service.persistence.mask_v4,
        "mask_v6": service.persistence.mask_v6,
        "drain_policy": int(service.drain_policy),
        "at_limit": int(service.at_limit),
        "max_connections": service.max_connections,
        "client_limit": service.client_max_connections,
        "client_limit_report_only": service.client_limit_report_only,
        "client_idle_ms": service.client_idle_timeout,
        "server_idle_ms": service.server_idle_timeout,
        "connect_timeout_ms": service.connect_timeout,
        "half_close_ms": service.half_close_timeout,
        "retries": service.retries,
        "redispatch": service.redispatch,
        "passive_fall": service.passive_fall,
        "keepalive": service.tcp_keepalive,
        "keepalive_idle_s": service.keepalive_idle // 1_000,
        "keepalive_interval_s": service.keepalive_interval // 1_000,
        "keepalive_count": service.keepalive_count,
        "user_timeout_ms": service.tcp_user_timeout,
        "congestion": "" if service.congestion_control == "system" else service.congestion_control,
        "send_proxy": _SEND_PROXY[service.send_proxy],
        "proxy_timeout_ms": service.proxy_timeout,
        "reals": [layout.reals[service.label, real.label] for real in service.real_servers],
        "fallback": layout.reals.get((service.label, FALLBACK_LABEL), -1),
        "sources": service.sources,
        "allow": service.allow,
        "deny": service.deny,
        "accept_proxy_from": service.accept_proxy_from,
    }


def _identity(identity: UUID | None, owner: str) -> bytes:
    if identity is None:
        raise ValueError(f"{owner} has no id: assign_ids comes before publish")
    return identity.bytes
