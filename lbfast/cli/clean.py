"""Text made safe for a terminal, and numbers and times made readable; pure functions."""

from __future__ import annotations

from datetime import datetime

from lbfast.model.visible import clean as clean
from lbfast.model.visible import size as size


def encodable(text: str, encoding: str | None) -> str:
    """The text with what the output's encoding cannot carry written as escapes instead of an error."""
    name = encoding or "ascii"
    return text.encode(name, "backslashreplace").decode(name)


def quote(label: object) -> str:
    """A label in quotes for a sentence."""
    return f'"{clean(label)}"'


def duration(seconds: float) -> str:
    """A span in its two largest units: 3 ms, 2.5 s, 4 min 10 s, 3 h 5 min, 2 d 4 h."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for large, name, small, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name} {rest} {part}" if rest else f"{whole // large} {name}"
    return f"{whole} s"


def plural(count: int, word: str, words: str | None = None) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{count} {word if count == 1 else words or word + 's'}"


def moment(value: object) -> datetime | None:
    """A time of the control protocol (ISO 8601 or Unix seconds) in local time; None when there is none."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value).astimezone()
        return datetime.fromisoformat(str(value)).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def clock(value: object) -> str:
    """The time of day, for events that follow one another."""
    at = moment(value)
    return at.strftime("%H:%M:%S") if at else "--:--:--"


def when(value: object, missing: str = "-") -> str:
    """Date and time, for what may lie days back."""
    at = moment(value)
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else missing
