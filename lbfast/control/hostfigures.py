"""How busy this machine is: processor and memory, in percent, from /proc."""

from __future__ import annotations

import math
from pathlib import Path


class HostFigures:
    """Processor time is counted between two looks."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last: tuple[int, int] | None = None

    def take(self) -> tuple[float, float]:
        """Processor and memory in use; NaN for what is not known (yet)."""
        return self._processor(), self._memory()

    def _processor(self) -> float:
        try:
            fields = [int(word) for word in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return math.nan
        if len(fields) < 5:
            return math.nan
        total, idle = sum(fields), fields[3] + fields[4]
        before, self._last = self._last, (total, idle)
        if before is None or total <= before[0]:
            return math.nan
        busy = 1 - (idle - before[1]) / (total - before[0])
        return round(100 * min(1.0, max(0.0, busy)), 2)

    def _memory(self) -> float:
        try:
            rows = dict(row.split(":", 1) for row in (self._proc / "meminfo").read_text().splitlines() if ":" in row)
            total, free = (int(rows[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
        except (OSError, ValueError, KeyError, IndexError):
            return math.nan
        return round(100 * (1 - free / total), 2) if total else math.nan
