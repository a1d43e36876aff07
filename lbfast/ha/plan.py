"""What the ha process knows of the configuration: settings, services and real servers, as one document."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lbfast.model.pair import HaSettings


@dataclass(frozen=True)
class RealPlan:
    """A real server, and where its state stands in shared memory."""

    id: str  # UUID
    slot: int
    label: str
    is_probed: bool
    address: str = ""


@dataclass(frozen=True)
class ServicePlan:
    """A virtual service."""

    id: str
    slot: int
    label: str
    address: str
    interface: str | None
    port: int  # its first
    is_deferring: bool  # a connection without a byte never reaches a worker
    is_persistent: bool
    timeout_ms: int
    is_movable: bool  # its connections to the servers come from a service address, which moves
    reals: tuple[RealPlan, ...]


@dataclass(frozen=True)
class HaPlan:
    """Everything; ``version`` and ``digest`` say which configuration it is of."""

    settings: HaSettings
    services: tuple[ServicePlan, ...]
    version: int
    digest: str = ""  # of the whole configuration, ids included, however it is written
    own: Mapping[str, str] = field(default_factory=dict)  # what each box has its own of, for comparison

    @property
    def wanted(self) -> list[tuple[str, str | None]]:
        """Addresses to hold, each once."""
        found = {service.address: service.interface for service in self.services}
        return list(found.items())

    def pack(self) -> int:
        """A memfd that holds it; the caller closes it."""
        document = {
            "settings": self.settings.model_dump(mode="json"),
            "services": [asdict(service) for service in self.services],
            "version": self.version,
            "digest": self.digest,
            "own": dict(self.own),
        }
        fd = os.memfd_create("ha-plan", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb", closefd=False) as stream:
            stream.write(json.dumps(document).encode())
        return fd


def unpack_plan(fd: int) -> HaPlan:
    """What ``pack`` packed."""
    document = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    services = tuple(ServicePlan(**{**service, "reals": _reals(service["reals"])}) for service in document["services"])
    return HaPlan(
        HaSettings.model_validate(document["settings"]),
        services,
        int(document["version"]),
        document["digest"],
        document.get("own", {}),
    )


def _reals(documents: Iterable[dict[str, Any]]) -> tuple[RealPlan, ...]:
    return tuple(RealPlan(**document) for document in documents)
