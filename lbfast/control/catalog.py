"""Names to slots and back: the running configuration as the verbs and reports need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from lbfast.control.protocol import ControlError
from lbfast.model.state import AtLimit, DrainPolicy, Persistence, Scheduler

if TYPE_CHECKING:
    from lbfast.model.appliance import Config
    from lbfast.model.service import VirtualService

FALLBACK = "fallback"  # the label under which the layout lists a fallback server


class LayoutFace(Protocol):
    """Slots by label (``config/layout.py``)."""

    @property
    def services(self) -> Mapping[str, int]: ...
    @property
    def reals(self) -> Mapping[tuple[str, str], int]: ...


@dataclass(frozen=True)
class RealInfo:
    """A real server as configured."""

    label: str
    id: bytes
    slot: int
    address: str
    port: int  # 0 = the port the client came to
    weight: int

    @property
    def key(self) -> str:
        """The id as it is written in the state file."""
        return self.id.hex()


@dataclass(frozen=True)
class ServiceInfo:
    """A virtual service as configured."""

    label: str
    id: bytes
    slot: int
    address: str
    ports: str
    mode: str
    scheduler: Scheduler
    is_persistent: bool
    timeout_ms: int  # of persistence
    mask_v4: int
    mask_v6: int
    drain_policy: DrainPolicy
    drain_deadline: float | None  # seconds, None = a drain has no deadline
    drain_cut: bool
    reals: tuple[RealInfo, ...]
    fallback: RealInfo | None
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    max_connections: int
    at_limit: AtLimit
    client_max_connections: int  # 0 = no limit
    client_limit_report_only: bool

    @property
    def key(self) -> str:
        return self.id.hex()

    def all_reals(self) -> tuple[RealInfo, ...]:
        return self.reals if self.fallback is None else (*self.reals, self.fallback)

    def real(self, label: str) -> RealInfo:
        for real in self.all_reals():
            if real.label == label:
                return real
        labels = [real.label for real in self.all_reals()]
        raise ControlError("no_such_real", f"{self.label!r} has no real server {label!r}{_hint(label, labels)}")


@dataclass(frozen=True)
class Catalog:
    """All virtual services in the order of the configuration."""

    services: tuple[ServiceInfo, ...]
    other_services: Mapping[int, str] = field(default_factory=dict)  # labels of slots that are not (or no longer) ours
    other_reals: Mapping[int, str] = field(default_factory=dict)
    _labels: dict[str, ServiceInfo] = field(init=False, repr=False, compare=False)
    _real_labels: dict[int, str] = field(init=False, repr=False, compare=False)
    _service_labels: dict[int, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_labels", {service.label: service for service in self.services})
        object.__setattr__(self, "_service_labels", {service.slot: service.label for service in self.services})
        object.__setattr__(self, "_real_labels", {real.slot: real.label for _, real in self.pairs()})

    def beside(self, other: Catalog) -> Catalog:
        """The same, that also knows the other's labels: for records of what was removed or is still to come."""
        services = {**other.other_services, **other._service_labels}
        return Catalog(self.services, services, {**other.other_reals, **other._real_labels})

    def pairs(self) -> Iterator[tuple[ServiceInfo, RealInfo]]:
        """Every real server, fallbacks too, with its service."""
        for service in self.services:
            for real in service.all_reals():
                yield service, real

    def service(self, label: str) -> ServiceInfo:
        found = self._labels.get(label)
        if found is None:
            raise ControlError(
                "no_such_service", f"there is no virtual service {label!r}{_hint(label, list(self._labels))}"
            )
        return found

    def service_label(self, slot: int) -> str:
        return self._service_labels.get(slot) or self.other_services.get(slot) or f"removed service #{slot}"

    def real_label(self, slot: int) -> str | None:
        """The label of a slot, None for -1 (none)."""
        if slot < 0:
            return None
        return self._real_labels.get(slot) or self.other_reals.get(slot) or f"removed server #{slot}"


def catalog_of(config: Config, layout: LayoutFace) -> Catalog:
    """The catalog of a configuration whose ids have been assigned."""
    return Catalog(tuple(_service_of(service, layout) for service in config.virtual_services))


def _service_of(service: VirtualService, layout: LayoutFace) -> ServiceInfo:
    persistence, found = service.persistence, service.fallback_server
    fallback = None
    if found is not None:
        fallback = RealInfo(
            FALLBACK, _bytes_of(found.id), layout.reals[service.label, FALLBACK], found.address, found.port or 0, 1
        )
    return ServiceInfo(
        label=service.label,
        id=_bytes_of(service.id),
        slot=layout.services[service.label],
        address=service.address,
        ports=service.ports_text,
        mode=service.mode,
        scheduler=service.scheduler,
        is_persistent=persistence.mode is not Persistence.NONE,
        timeout_ms=persistence.timeout,
        mask_v4=persistence.mask_v4,
        mask_v6=persistence.mask_v6,
        drain_policy=service.drain_policy,
        drain_deadline=None if service.drain_deadline is None else service.drain_deadline / 1000,
        drain_cut=service.drain_cut,
        reals=tuple(
            RealInfo(
                real.label,
                _bytes_of(real.id),
                layout.reals[service.label, real.label],
                real.address,
                real.port or 0,
                real.weight,
            )
            for real in service.real_servers
        ),
        fallback=fallback,
        allow=tuple(service.allow),
        deny=tuple(service.deny),
        max_connections=service.max_connections,
        at_limit=service.at_limit,
        client_max_connections=service.client_max_connections,
        client_limit_report_only=service.client_limit_report_only,
    )


def _bytes_of(identity: UUID | None) -> bytes:
    if identity is None:
        raise ValueError("a virtual service or real server has no id: assign_ids comes before the control process")
    return identity.bytes


def _hint(label: str, labels: list[str]) -> str:
    """What would have been right: the nearest label, or the short list of all."""
    if not labels:
        return "; there are none"
    folded = {known.casefold(): known for known in labels}
    near = get_close_matches(label.casefold(), list(folded), 1)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    listed = ", ".join(repr(known) for known in labels[:8])
    return f"; there are {listed}" + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
