"""Finds what is worth an alert by comparing what is with what was.  Pure: facts in, alerts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lbfast.control.alert_groups import Alert

OWN: Final = ("", "")  # in place of a virtual service and a real server, none of which have an empty label
OWN_TEXT: Final = "the certificate of the web interface"
DAYS: Final = (30, 14, 7, 3, 1, 0)


@dataclass(frozen=True)
class RealFact:
    """``is_up`` is None while it is not known, or while an operator has taken the server out."""

    label: str
    is_up: bool | None
    reason: str
    certificate_ends_in: float | None = None  # seconds


@dataclass(frozen=True)
class ServiceFact:
    """``state`` as in the overview; ``fullness`` of its persistence table, in percent."""

    label: str
    state: str
    reals: tuple[RealFact, ...]
    fullness: float | None = None


class AlertWatch:
    """Remembers what was; the first look at something is never an alert, unless it is bad."""

    def __init__(self, certificate_days: int, table_percent: int) -> None:
        self._certificate_days = certificate_days
        self._table_percent = table_percent
        self._reals: dict[tuple[str, str], bool] = {}
        self._services: dict[str, bool] = {}
        self._certificates: dict[tuple[str, str], int] = {}
        self._full: set[str] = set()

    def look(self, services: Iterable[ServiceFact], at: str, own_ends_in: float | None = None) -> list[Alert]:
        """``own_ends_in``: seconds to the end of the web interface's certificate, when that is known."""
        alerts: list[Alert] = []
        if when := self._is_ending(OWN, own_ends_in):
            alerts.append(Alert("certificate", OWN_TEXT, f"{OWN_TEXT} {when}", at))
        seen = list(services)
        for service in seen:
            alerts += self._look_at_service(service, at)
            for real in service.reals:
                alerts += self._look_at_real(service.label, real, at)
                alerts += self._look_at_certificate(service.label, real, at)
            alerts += self._look_at_table(service, at)
        self._forget({service.label: {real.label for real in service.reals} for service in seen})
        return alerts

    def _look_at_service(self, service: ServiceFact, at: str) -> list[Alert]:
        if service.state not in ("up", "degraded", "down"):
            return []  # checking, or drained on purpose
        is_up = service.state != "down"
        before = self._services.get(service.label, True)
        self._services[service.label] = is_up
        if is_up == before:
            return []
        kind, words = ("service_up", "serves again") if is_up else ("service_down", "is down: no server takes clients")
        return [Alert(kind, service.label, f"virtual service {service.label} {words}", at, service.label)]

    def _look_at_real(self, service: str, real: RealFact, at: str) -> list[Alert]:
        if real.is_up is None:
            return []
        before = self._reals.get((service, real.label), True)
        self._reals[service, real.label] = real.is_up
        if real.is_up == before:
            return []
        kind, word = ("server_up", "up") if real.is_up else ("server_down", "down")
        text = f"{real.label} of {service} is {word}" + (f": {real.reason}" if real.reason else "")
        return [Alert(kind, service, text, at, service, real.label)]

    def _look_at_certificate(self, service: str, real: RealFact, at: str) -> list[Alert]:
        when = self._is_ending((service, real.label), real.certificate_ends_in)
        if not when:
            return []
        text = f"the certificate of {real.label} of {service} {when}"
        return [Alert("certificate", f"certificates of {service}", text, at, service, real.label)]

    def _is_ending(self, key: tuple[str, str], ends_in: float | None) -> str:
        """When, once for each of the days before the end that are told; else nothing."""
        if ends_in is None or not self._certificate_days:
            return ""
        left = ends_in / 86_400
        steps = sorted({self._certificate_days, *(each for each in DAYS if each < self._certificate_days)})
        step = next((each for each in steps if left <= each), None)
        before = self._certificates.get(key)
        if step is None:
            self._certificates.pop(key, None)
            return ""
        self._certificates[key] = step
        if before is not None and step >= before:
            return ""
        return "has ended" if left <= 0 else f"ends in {left:.0f} days" if left >= 1.5 else "ends within a day"

    def _look_at_table(self, service: ServiceFact, at: str) -> list[Alert]:
        if service.fullness is None or not self._table_percent:
            return []
        if service.fullness < self._table_percent - 5:
            self._full.discard(service.label)
        elif service.fullness >= self._table_percent and service.label not in self._full:
            self._full.add(service.label)
            text = f"the persistence table of {service.label} is {service.fullness:.0f} % full"
            return [Alert("table", f"persistence table of {service.label}", text, at, service.label)]
        return []

    def _forget(self, known: Mapping[str, set[str]]) -> None:
        """What is not configured any more."""
        for table in (self._reals, self._certificates):
            for key in [key for key in table if key != OWN and key[1] not in known.get(key[0], ())]:
                table.pop(key)
        self._services = {label: is_up for label, is_up in self._services.items() if label in known}
        self._full &= set(known)
