"""This machine in a few figures: processor, memory, traffic, connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

_STAT: Final = Path("/proc/stat")
_MEMORY: Final = Path("/proc/meminfo")


class HostFigures:
    """Rates are between two calls."""

    def __init__(self) -> None:
        self._cpu: tuple[int, int] | None = None
        self._counted: tuple[float, int, int, int] | None = None
        self._last: dict[str, float] = {"bytes_in": 0.0, "bytes_out": 0.0, "new": 0.0}

    def figures(self, statistics: dict[str, Any], services: list[dict[str, Any]], now: float) -> dict[str, Any]:
        reals = [it for service in services for it in service["real_servers"]]
        states = [it["state"] for it in services]
        return {
            "cpu": self._processor(),
            "memory": memory_share(),
            **self._rates(statistics, now),
            "connections": sum(it["connections"] for it in services),
            "services": len(services),
            "real_servers": len(reals),
            "up": sum(state in ("up", "degraded") for state in states),
            "problems": sum(state in ("degraded", "down") for state in states),
            "reals_up": sum(it["state"] == "up" for it in reals),
        }

    def _processor(self) -> int | None:
        """Per cent of all cores."""
        try:
            fields = [int(word) for word in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        busy, total = sum(fields) - fields[3] - fields[4], sum(fields)
        before, self._cpu = self._cpu, (busy, total)
        if before is None or total <= before[1]:
            return None
        return round(100 * (busy - before[0]) / (total - before[1]))

    def _rates(self, statistics: dict[str, Any], now: float) -> dict[str, float]:
        reals = [real for service in statistics["virtual_services"] for real in service["real_servers"]]
        inbound = sum(real["bytes_in"] for real in reals)
        outbound = sum(real["bytes_out"] for real in reals)
        accepted = sum(service["accepted"] for service in statistics["virtual_services"])
        before = self._counted
        if before is not None and now - before[0] < 0.5:
            return dict(self._last)
        self._counted = (now, inbound, outbound, accepted)
        if before is None:
            return dict(self._last)
        span = now - before[0]
        self._last = {
            "bytes_in": round(max(0, inbound - before[1]) / span),
            "bytes_out": round(max(0, outbound - before[2]) / span),
            "new": round(max(0, accepted - before[3]) / span, 1),
        }
        return dict(self._last)


def memory_share() -> int | None:
    """Per cent in use."""
    try:
        rows = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        total, free = (int(rows[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    return round(100 * (total - free) / total)
