"""The clock of shared memory for the health process: CLOCK_BOOTTIME milliseconds."""

from __future__ import annotations

import time


def now_ms() -> int:
    """The same clock as ``_shm.now_ms``, readable without the compiled modules."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
