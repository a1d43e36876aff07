"""One probe of real servers, now and out of turn, by the code of the health process: what it saw, step by step.

It is made in this process, so it works while health is restarted, too.  Nothing is counted: the verdict stays
what the regular probes say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from lbfast.control.addresses import parse_address
from lbfast.control.arguments import Arg, Entry
from lbfast.control.engine import Caller, Engine
from lbfast.control.face import face_of
from lbfast.control.protocol import ControlError
from lbfast.control.reports import certificate_report
from lbfast.health.plan import spec_from_config, specs_of
from lbfast.health.probes import Prober, place_of
from lbfast.health.spec import ProbeSpec
from lbfast.health.text import clean
from lbfast.health.trace import Trace

if TYPE_CHECKING:
    from lbfast.model.appliance import Config
    from lbfast.model.service import VirtualService

Result = dict[str, Any]

MOST_AT_ONCE: Final = 16  # probes in flight for all who ask; a script is a process
MOST_REALS: Final = 256  # of one test
MOST_WAITING: Final = 8  # tests that may wait for their turn


class ProbeDesk:
    """Where probes out of turn are made; one of them in a control process."""

    def __init__(self, prober: Prober | None = None) -> None:
        self._prober = prober or Prober()
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._asking = 0

    async def test(self, specs: dict[str, ProbeSpec]) -> list[Result]:
        """A report for each; ControlError ``busy`` when too many ask."""
        if self._asking >= MOST_WAITING:
            raise ControlError("busy", f"{self._asking} tests of health checks are under way; try again in a moment")
        self._asking += 1
        try:
            return list(await asyncio.gather(*(self._one(label, spec) for label, spec in specs.items())))
        finally:
            self._asking -= 1

    async def _one(self, label: str, spec: ProbeSpec) -> Result:
        async with self._places:
            trace = Trace()
            result = await self._prober.probe(spec, trace)
        return {
            "real": label,
            "place": place_of(spec),
            "type": str(spec.type),
            "ok": result.ok,
            "reason": result.reason,
            "duration_ms": result.duration_ms,
            "steps": [
                {"phase": str(it.phase), "at_ms": round(it.at_ms, 1), "ok": it.ok, "seen": clean(it.seen)}
                for it in trace.steps
            ],
            "certificate": certificate_report(result.certificate),
        }


async def health_test(
    engine: Engine,
    caller: Caller,
    service: str,
    real: str | None = None,
    operations: list[Any] | None = None,
    address: str | None = None,
    port: int | None = None,
) -> Result:
    """The health check of the running configuration; with ``operations``, even none, that of the candidate after them.

    ``address`` (and ``port``): ask this server, which need not be one of the service's.
    """
    face = face_of(engine)
    if port is not None and address is None:
        raise ControlError("bad_argument", "port: expected address with it: the server that is to be asked")
    if operations is None:
        config: Config | None = face.drafts.running
        problems: list[Result] = []
    else:
        config, problems = await face.drafts.tried(operations)
    report = {"service": service, "accepted": config is not None, "problems": problems, "tests": []}
    if config is None:
        return report
    specs = _specs(_service(config, service), real, address, port)
    engine.announce(f"health check tested by {caller.user} on {', '.join(list(specs)[:5])}", service=service)
    return report | {"tests": await face.probes.test(specs)}


def _service(config: Config, label: str) -> VirtualService:
    found = next((it for it in config.virtual_services if it.label == label), None)
    if found is None:
        raise ControlError("no_such_service", f"there is no virtual service {label!r} in this configuration")
    return found


def _specs(service: VirtualService, real: str | None, address: str | None, port: int | None) -> dict[str, ProbeSpec]:
    if address is not None:
        return {real or address: spec_from_config(service, str(parse_address(address)), port)}
    specs = specs_of(service)
    if real is not None:
        if real not in specs:
            raise ControlError("no_such_real", f"there is no real server {real!r} in {service.label!r}")
        return {real: specs[real]}
    if len(specs) > MOST_REALS:
        message = f"{service.label!r} has {len(specs)} real servers, at most {MOST_REALS} are tested at once: name one"
        raise ControlError("bad_argument", message)
    return specs


# name, function, arguments, whether it changes something or makes lbfast act
ENTRIES: Final[tuple[Entry, ...]] = (
    (
        "health_test",
        health_test,
        (
            Arg("service", str),
            Arg("real", str, required=False),
            Arg("operations", list, required=False),
            Arg("address", str, required=False, most=64),
            Arg("port", int, False, 1, 65_535),
        ),
        True,
    ),
)
