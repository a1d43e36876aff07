"""The supervisor's part of the ha process: what it is given at its fork, and what it is told by commits."""

from __future__ import annotations

import hashlib
from collections.abc import Set

from lbfast._stick import StickTable
from lbfast.config.former import Former, load_former
from lbfast.config.layout import Layout
from lbfast.config.own import own_words
from lbfast.config.paths import runtime_dir, state_dir
from lbfast.ha.plan import HaPlan, RealPlan, ServicePlan
from lbfast.model.appliance import LOCAL_KEYS, Config
from lbfast.model.service import FALLBACK_LABEL, FallbackServer, RealServer, VirtualService
from lbfast.supervisor import capabilities
from lbfast.supervisor.channel import Channel
from lbfast.supervisor.ha_addresses import AddressOwner, HeldAddresses
from lbfast.supervisor.privileges import HA_SETTLED
from lbfast.supervisor.shared import Shared

PAIR_FILES = ("pair.json", "pair_password.json")


def is_paired() -> bool:
    """Whether this box is one of a pair."""
    return (state_dir() / PAIR_FILES[0]).exists()


def former_pair() -> Former | None:
    """The pair that this box was in without having the addresses, which it has not taken since."""
    return None if is_paired() else load_former(state_dir())


def address_owner() -> AddressOwner:
    """As a supervisor begins with it."""
    record = state_dir() / "addresses.json"
    return AddressOwner(record, is_paired=is_paired(), stays_away=former_pair() is not None)


def is_wanted() -> bool:
    """Whether the ha process has anything to do: a pair, or a password of its own with which one may be made."""
    return any((state_dir() / name).exists() for name in PAIR_FILES)


def is_open(config: Config) -> bool:
    """Whether it answers who knows the password of the web user, from when there is one."""
    return config.web is not None and config.ha.pairing


def ha_body(config: Config, layout: Layout, version: int, shared: Shared, channel: Channel, owner: int | None) -> int:
    """In the child.  ``owner``: the user that control runs as, who must reach our socket; None = ours."""
    # Imported here, in the child: what it needs is no burden to the supervisor and the workers.
    from lbfast.ha.process import HaSetup, run_ha

    setup = HaSetup(
        plan=make_plan(config, layout, version),
        counters=shared.counters,
        table=shared.table,
        sticks=dict(shared.sticks),
        addresses=HeldAddresses(state_dir() / "addresses.json"),
        state_dir=state_dir(),
        runtime_dir=runtime_dir(),
        attach=StickTable.attach,
        journal=shared.journal,
        owner=owner,
        settle=lambda: capabilities.keep_only(HA_SETTLED),
    )
    return run_ha(setup, channel)


def prove_ha(config: Config, layout: Layout, version: int, channel: Channel) -> int:
    """In a trial: everything but to speak to the peer, who knows one of us already."""
    from lbfast.ha import process

    make_plan(config, layout, version)
    channel.send_now({"event": "ready", "by": process.__name__})
    return 0


def make_plan(config: Config, layout: Layout, version: int) -> HaPlan:
    """What the ha process needs of a configuration."""
    addresses = {str(service.address) for service in config.virtual_services}
    services = tuple(_service_plan(service, layout, addresses) for service in config.virtual_services)
    digest = hashlib.sha256(config.model_dump_json(exclude=set(LOCAL_KEYS)).encode()).hexdigest()
    return HaPlan(config.ha, services, version, digest, own_words(config))


def _service_plan(service: VirtualService, layout: Layout, addresses: Set[str]) -> ServicePlan:
    reals: list[tuple[str, RealServer | FallbackServer]] = [(real.label, real) for real in service.real_servers]
    if service.fallback_server is not None:
        reals.append((FALLBACK_LABEL, service.fallback_server))
    is_probed = service.health_check.type != "none"
    return ServicePlan(
        id=str(service.id),
        slot=layout.services[service.label],
        label=service.label,
        address=str(service.address),
        interface=service.interface,
        port=service.port_numbers[0],
        is_deferring=service.client_speaks_first,
        is_persistent=service.persistence.mode != 0,
        timeout_ms=int(service.persistence.timeout),
        is_movable=bool(service.sources) and addresses >= set(service.sources),
        reals=tuple(
            RealPlan(
                id=str(real.id),
                slot=layout.reals[service.label, label],
                label=label,
                is_probed=is_probed and label != FALLBACK_LABEL,
                address=str(real.address),
            )
            for label, real in reals
        ),
    )
