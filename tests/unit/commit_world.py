"""Configurations for the tests of commits, made of few words, with ids that follow the labels."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

from lbfast.config.layout import Layout
from lbfast.config.steps import AddReal, AddService, ChangeReal, ChangeService, RemoveReal, RemoveService, Step
from lbfast.model.appliance import Config


def identity(*names: str) -> str:
    """The same id for the same names."""
    return str(uuid5(NAMESPACE_DNS, "/".join(names)))


def real(service: str, label: str, **settings: Any) -> dict[str, Any]:
    return {"label": label, "id": identity(service, label), "address": "192.0.2.1"} | settings


def service(label: str, *reals: str | dict[str, Any], ports: str = "80", **settings: Any) -> dict[str, Any]:
    servers = [real(label, it) if isinstance(it, str) else it for it in reals]
    return (
        {"label": label, "id": identity(label), "address": "127.0.0.1", "ports": ports}
        | settings
        | {"real_server": servers}
    )


def config(*services: dict[str, Any], **top: Any) -> Config:
    return Config.model_validate({"virtual_service": list(services)} | top)


def slots(layout: Layout, candidate: Config) -> dict[tuple[UUID | None, UUID | None], int]:
    """(service id, real server id) -> slot; a service itself has None for the second."""
    found: dict[tuple[UUID | None, UUID | None], int] = {}
    for vs in candidate.virtual_services:
        found[vs.id, None] = layout.services[vs.label]
        for rs in vs.real_servers:
            found[vs.id, rs.id] = layout.reals[vs.label, rs.label]
    return found


def follow(layout: Layout, steps: tuple[Step, ...]) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Slots by label after the steps were taken one after the other."""
    services, reals = dict(layout.services), dict(layout.reals)
    for step in steps:
        if isinstance(step, RemoveReal):
            reals = {key: slot for key, slot in reals.items() if slot != step.slot}
        elif isinstance(step, RemoveService):
            services = {label: slot for label, slot in services.items() if slot != step.slot}
    names = {slot: label for label, slot in services.items()}
    homes = {slot: key for key, slot in reals.items()}
    for step in steps:
        if isinstance(step, AddService | ChangeService):
            names[step.slot] = step.label
    for step in steps:
        if isinstance(step, AddReal | ChangeReal):
            homes[step.slot] = (step.label, step.real)
    renamed = {layout.services[step.was]: step.label for step in steps if isinstance(step, ChangeService)}
    old = {slot: label for label, slot in layout.services.items()}
    moved = {old[slot]: label for slot, label in renamed.items()}
    touched = {step.slot for step in steps if isinstance(step, AddReal | ChangeReal)}
    return {label: slot for slot, label in names.items()}, {
        (label if slot in touched else moved.get(label, label), rs): slot for slot, (label, rs) in homes.items()
    }
