"""The identities of services and real servers: made when the configuration has none, and kept.

The stick table and the peer name a real server by its identity, so it must be
the same at the next start.  The configuration file is the operator's and is not
rewritten: identities are kept beside it, by label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from lbfast.model.appliance import Config
from lbfast.model.service import FALLBACK_LABEL, VirtualService

Key = tuple[str, str]
"""(service label, real server label); the service itself has an empty second label."""


@dataclass(frozen=True)
class KnownIds:
    """The identity that each object had when it was last seen."""

    ids: Mapping[Key, UUID] = field(default_factory=dict)


def assign_ids(config: Config, known: KnownIds, make: Callable[[], UUID] = uuid4) -> tuple[Config, KnownIds]:
    """The configuration with an identity on everything, and what to remember.

    An identity in the configuration wins over a remembered one, a remembered one
    over a new one.  No identity is given twice.  What is no longer in the
    configuration stays known, so that a server that comes back is the same one.
    """
    given = {key: identity for service in config.virtual_services for key, identity in _given(service) if identity}
    taken = set(given.values())
    chosen: dict[Key, UUID] = {}

    def choose(key: Key) -> UUID:
        identity = given.get(key)
        if identity is None:
            remembered = known.ids.get(key)
            identity = remembered if remembered and remembered not in taken else make()
            taken.add(identity)
        chosen[key] = identity
        return identity

    services = tuple(_with_ids(service, choose) for service in config.virtual_services)
    gone = {key: identity for key, identity in known.ids.items() if key not in chosen and identity not in taken}
    return config.model_copy(update={"virtual_services": services}), KnownIds({**gone, **chosen})


def _given(service: VirtualService) -> list[tuple[Key, UUID | None]]:
    found: list[tuple[Key, UUID | None]] = [((service.label, ""), service.id)]
    found += [((service.label, real.label), real.id) for real in service.real_servers]
    if service.fallback_server is not None:
        found.append(((service.label, FALLBACK_LABEL), service.fallback_server.id))
    return found


def _with_ids(service: VirtualService, choose: Callable[[Key], UUID]) -> VirtualService:
    update: dict[str, object] = {
        "id": choose((service.label, "")),
        "real_servers": tuple(
            real.model_copy(update={"id": choose((service.label, real.label))}) for real in service.real_servers
        ),
    }
    if service.fallback_server is not None:
        identity = choose((service.label, FALLBACK_LABEL))
        update["fallback_server"] = service.fallback_server.model_copy(update={"id": identity})
    return service.model_copy(update=update)
