"""The types of configuration fields that hold a duration; apart from the words, which need no pydantic."""

from __future__ import annotations

from typing import Annotated, Any

from lbfast.model.durations import EXAMPLES, LONGEST_MS, PATTERN, parse_duration, render_duration
from lbfast.model.values import Parsed, refuse, text_schema


def duration_type(least_ms: int = 0, most_ms: int = LONGEST_MS, *, step_ms: int = 1) -> Parsed:
    """The mark of a field that holds a duration between two bounds."""
    whole = " in whole seconds" if step_ms == 1_000 else ""
    bounds = f"a duration from {render_duration(least_ms)} to {render_duration(most_ms)}{whole}"

    def parse(value: Any) -> int:
        if not isinstance(value, str):
            hint = f' (with its unit, in quotes: "{value}s"?)' if type(value) is int else ""
            raise refuse(EXAMPLES + hint)
        try:
            ms = parse_duration(value)
        except ValueError:
            raise refuse(EXAMPLES) from None
        if not least_ms <= ms <= most_ms or ms % step_ms:
            raise refuse(bounds)
        return ms

    return Parsed(parse, render_duration, text_schema(PATTERN, example=render_duration(max(least_ms, 4_000))))


Duration = Annotated[int, duration_type()]
"""Milliseconds; "0s" is allowed and means off."""

PositiveDuration = Annotated[int, duration_type(1)]
"""Milliseconds, at least one."""

KeepaliveDuration = Annotated[int, duration_type(1_000, 32_767_000, step_ms=1_000)]
"""Milliseconds; the kernel takes 1 to 32,767 whole seconds."""
