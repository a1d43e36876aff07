"""What `top` shows, computed from two samples of the control protocol; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lbfast.cli.clean import plural
from lbfast.cli.labels import all_reals

Key = tuple[str, str]  # service label and real server label; the service's own row has "" for the real server


@dataclass(frozen=True)
class Totals:
    """What only grows (until a worker's page starts anew)."""

    opened: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.opened + other.opened, self.bytes_in + other.bytes_in, self.bytes_out + other.bytes_out)


@dataclass(frozen=True)
class Rates:
    """Per second, between two samples."""

    opened: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


@dataclass(frozen=True)
class Row:
    """A line of the table: a virtual service, or one of its real servers."""

    key: Key
    state: str
    connections: int
    rates: Rates | None  # None until there are two samples
    note: str

    @property
    def is_real(self) -> bool:
        return bool(self.key[1])


def totals_of(statistics: Mapping[str, Any]) -> dict[Key, Totals]:
    """The growing counters of every real server, and their sums for every virtual service."""
    totals: dict[Key, Totals] = {}
    for service in statistics["virtual_services"]:
        label = str(service["label"])
        whole = Totals()
        for real in service["real_servers"]:
            part = Totals(int(real["opened"]), int(real["bytes_in"]), int(real["bytes_out"]))
            totals[label, str(real["label"])] = part
            whole += part
        totals[label, ""] = whole
    return totals


def rates_between(before: Mapping[Key, Totals], after: Mapping[Key, Totals], seconds: float) -> dict[Key, Rates]:
    """Growth per second; a counter that went back started anew and counts as zero for once."""
    if seconds <= 0:
        return {}
    return {
        key: Rates(
            max(0, now.opened - before[key].opened) / seconds,
            max(0, now.bytes_in - before[key].bytes_in) / seconds,
            max(0, now.bytes_out - before[key].bytes_out) / seconds,
        )
        for key, now in after.items()
        if key in before
    }


def rows_of(overview: Mapping[str, Any], rates: Mapping[Key, Rates], wanted: str = "") -> list[Row]:
    """All rows, or those whose label or state holds ``wanted``; a service stays when one of its servers does."""
    rows: list[Row] = []
    for service in overview["virtual_services"]:
        label = str(service["label"])
        head = Row(
            (label, ""),
            str(service["state"]),
            int(service["connections"]),
            rates.get((label, "")),
            f"{service['address']} ports {service['ports']}, {service['persistence_entries'] or 0} clients remembered",
        )
        reals = [_real_row(label, real, rates) for real in all_reals(service)]
        if not _matches(head, label, wanted):
            reals = [row for row in reals if _matches(row, row.key[1], wanted)]
            if not reals:
                continue
        rows += [head, *reals]
    return rows


def _real_row(service: str, real: Mapping[str, Any], rates: Mapping[Key, Rates]) -> Row:
    label = str(real["label"])
    port = f" port {real['port']}" if real["port"] else ""
    reason = f": {real['reason']}" if real["reason"] else ""
    note = f"{real['address']}{port}, weight {real['weight']}, {real['clients'] or 0} clients{reason}"
    return Row((service, label), str(real["state"]), int(real["connections"]), rates.get((service, label)), note)


def _matches(row: Row, label: str, wanted: str) -> bool:
    folded = wanted.casefold().strip()
    return folded in label.casefold() or folded == row.state


def summary(rows: list[Row]) -> str:
    """The head line: everything added up."""
    services = [row for row in rows if not row.is_real]
    reals = [row for row in rows if row.is_real]
    up = sum(row.state == "up" for row in reals)
    connections = sum(row.connections for row in services)
    count = plural(len(services), "service")
    return f"{count}, {up} of {plural(len(reals), 'server')} up, {plural(connections, 'connection')}"
