"""Durations as people write them ("500ms", "4s", "30m", "12h", "1d"), kept as whole milliseconds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from lbfast.model.values import Parsed, refuse, text_schema

# Shared memory and the timer wheel hold a duration in 31 bits of milliseconds: 24.8 days.
LONGEST_MS = 24 * 86_400_000

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN = "^[0-9]{1,10}(ms|s|m|h|d)$"
_DURATION = re.compile(r"([0-9]{1,10})(ms|s|m|h|d)")
_EXAMPLES = 'a duration such as "500ms", "4s", "30m", "12h" or "1d"'


def parse_duration(text: str) -> int:
    """Milliseconds of a duration; ValueError when it is not one."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {_EXAMPLES}")
    return int(match[1]) * _UNITS[match[2]]


def render_duration(ms: int) -> str:
    """The shortest exact text: the largest unit that divides it."""
    for unit, factor in reversed(_UNITS.items()):
        if ms and ms % factor == 0:
            return f"{ms // factor}{unit}"
    return "0s"


def duration_type(least_ms: int = 0, most_ms: int = LONGEST_MS, *, step_ms: int = 1) -> Parsed:
    """The mark of a field that holds a duration between two bounds."""
    whole = " in whole seconds" if step_ms == 1_000 else ""
    bounds = f"a duration from {render_duration(least_ms)} to {render_duration(most_ms)}{whole}"

    def parse(value: Any) -> int:
        if not isinstance(value, str):
            hint = f' (with its unit, in quotes: "{value}s"?)' if type(value) is int else ""
            raise refuse(_EXAMPLES + hint)
        try:
            ms = parse_duration(value)
        except ValueError:
            raise refuse(_EXAMPLES) from None
        if not least_ms <= ms <= most_ms or ms % step_ms:
            raise refuse(bounds)
        return ms

    return Parsed(parse, render_duration, text_schema(_PATTERN, example=render_duration(max(least_ms, 4_000))))


Duration = Annotated[int, duration_type()]
"""Milliseconds; "0s" is allowed and means off."""

PositiveDuration = Annotated[int, duration_type(1)]
"""Milliseconds, at least one."""

KeepaliveDuration = Annotated[int, duration_type(1_000, 32_767_000, step_ms=1_000)]
"""Milliseconds; the kernel takes 1 to 32,767 whole seconds."""
