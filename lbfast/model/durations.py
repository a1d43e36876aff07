"""Durations as people write them ("500ms", "4s", "30m", "12h", "1d"), kept as whole milliseconds."""

from __future__ import annotations

import re

# Shared memory and the timer wheel hold a duration in 31 bits of milliseconds: 24.8 days.
LONGEST_MS = 24 * 86_400_000

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
PATTERN = "^[0-9]{1,10}(ms|s|m|h|d)$"
_DURATION = re.compile(r"([0-9]{1,10})(ms|s|m|h|d)")
EXAMPLES = 'a duration such as "500ms", "4s", "30m", "12h" or "1d"'


def parse_duration(text: str) -> int:
    """Milliseconds of a duration; ValueError when it is not one."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {EXAMPLES}")
    return int(match[1]) * _UNITS[match[2]]


def render_duration(ms: int) -> str:
    """The shortest exact text: the largest unit that divides it."""
    for unit, factor in reversed(_UNITS.items()):
        if ms and ms % factor == 0:
            return f"{ms // factor}{unit}"
    return "0s"
