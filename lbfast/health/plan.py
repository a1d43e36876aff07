"""Which real servers to probe and how, from the configuration: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol, TypedDict

from lbfast.health.spec import CheckedReal, FlapSpec, ProbeSpec, ProbeType
from lbfast.model.appliance import Config
from lbfast.model.health_check import HealthCheck
from lbfast.model.ranges import numbers_of
from lbfast.model.service import FALLBACK_LABEL, VirtualService


class Slots(Protocol):
    """The part of ``config.layout.Layout`` that is needed here."""

    @property
    def services(self) -> Mapping[str, int]: ...
    @property
    def reals(self) -> Mapping[tuple[str, str], int]: ...


class Timing(TypedDict):
    """What the probes of all servers of a service share."""

    source_address: str | None
    interval_ms: int
    timeout_ms: int
    rise: int
    fall: int
    jitter: float
    all_down_grace_ms: int
    flap: FlapSpec


def plan_checks(config: Config, layout: Slots) -> list[CheckedReal]:
    """Every real server of every service, in the order of the configuration, fallback servers too."""
    checks: list[CheckedReal] = []
    for service in config.virtual_services:
        slot = layout.services[service.label]
        for label, spec in specs_of(service).items():
            is_fallback = label == FALLBACK_LABEL
            checks.append(
                CheckedReal(layout.reals[service.label, label], slot, service.label, label, spec, is_fallback)
            )
    return checks


def specs_of(service: VirtualService) -> dict[str, ProbeSpec]:
    """The probe of each real server of a service, by label; the fallback server is the last."""
    specs = {real.label: spec_from_config(service, real.address, real.port) for real in service.real_servers}
    if service.fallback_server is not None:
        place = service.fallback_server
        specs[FALLBACK_LABEL] = _fallback_spec(service, place.address, place.port)
    return specs


def spec_from_config(service: VirtualService, address: str, port: int | None) -> ProbeSpec:
    """The probe of one real server at ``address``; ``port`` is its own, if it has one."""
    check = service.health_check
    first_port = service.port_numbers[0]
    return ProbeSpec(
        type=ProbeType(check.type),
        address=address,
        port=check.port or port or first_port,
        vip=service.address,
        vport=first_port,
        method=check.method,
        path=check.path,
        host=check.host,
        sni=check.sni,
        expected_status=frozenset(numbers_of(check.expected_status)),
        expected_text=check.expected_text,
        expected_regex=None if check.expected_regex is None else re.compile(check.expected_regex),
        script=check.script,
        **_timing(check),
    )


def _fallback_spec(service: VirtualService, address: str, port: int | None) -> ProbeSpec:
    """A fallback server is another kind of server: only whether it takes connections is asked."""
    first_port = service.port_numbers[0]
    kind = ProbeType.NONE if service.health_check.type == "none" else ProbeType.CONNECT
    return ProbeSpec(
        type=kind,
        address=address,
        port=port or first_port,
        vip=service.address,
        vport=first_port,
        **_timing(service.health_check),
    )


def _timing(check: HealthCheck) -> Timing:
    return {
        "source_address": check.source_address,
        "interval_ms": check.interval,
        "timeout_ms": check.timeout,
        "rise": check.rise,
        "fall": check.fall,
        "jitter": check.jitter,
        "all_down_grace_ms": check.all_down_grace,
        "flap": FlapSpec(check.flap_threshold, check.flap_window, check.flap_hold, check.flap_max_hold),
    }
