"""Numbers, times and states as people read them.  Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
# What could reorder or hide text beside it: shown as its escape, as the command line does.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_STATES: Final = {
    "up": "Up",
    "degraded": "Some down",
    "down": "Down",
    "checking": "Checking",
    "drained": "Drained",
    "drain": "Draining",
    "halt": "Halted",
    "eased": "Part drained",
}


def state_word(state: str) -> str:
    return _STATES.get(state, state.capitalize())


def state_words() -> tuple[str, ...]:
    """All that there are, for a catalogue."""
    return tuple(_STATES.values())


def service_state(service: Mapping[str, Any]) -> str:
    """The state as it is shown: where an operator took servers out and the others are up, nothing is wrong."""
    state = str(service["state"])
    is_wished = all(real["state"] in ("up", "drain", "halt") for real in service["real_servers"])
    return "eased" if state == "degraded" and is_wished else state


def taken(service: Mapping[str, Any]) -> bool:
    """Whether an operator has taken a real server out."""
    return any(real["admin"] != "online" for real in service["real_servers"])


def findable(service: Mapping[str, Any]) -> str:
    """What a search finds a service by although its real servers are not on the page."""
    return " ".join(f"{real['label']} {real['address']}" for real in service["real_servers"]).lower()


def size(value: float) -> str:
    """512 B, 1.2 kB, 34 MB."""
    amount = float(value)
    for unit in _UNITS:
        if amount < 999.5 or unit == _UNITS[-1]:
            break
        amount /= 1000
    digits = 1 if unit != "B" and amount < 9.95 else 0
    return f"{amount:.{digits}f} {unit}"


def rate(value: float) -> str:
    return f"{size(value)}/s"


def count(value: float) -> str:
    """1,234."""
    return f"{value:,.0f}"


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def span(seconds: float | None) -> str:
    """A span in its two largest units."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 and seconds != whole else f"{whole} s"
    for size_, unit, lower, lower_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size_:
            rest = whole % size_ // lower
            return f"{whole // size_} {unit}" + (f" {rest} {lower_unit}" if rest else "")
    return f"{whole} s"


def moment(text: str | None) -> str:
    """2026-11-22 18:30:51."""
    return _local(text, "%Y-%m-%d %H:%M:%S")


def clock(text: str | None) -> str:
    """18:30:51."""
    return _local(text, "%H:%M:%S")


def _local(text: str | None, form: str) -> str:
    if not text:
        return ""
    try:
        return datetime.fromisoformat(text).astimezone().strftime(form)
    except ValueError:
        return text


def shown(text: Any) -> str:
    """One line of visible characters: nothing hidden, nothing reordered.  HTML is the template's care."""
    return "".join(_escape(char) if unicodedata.category(char) in _UNSAFE else char for char in str(text))


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: Any) -> str:
    """For a query of an address."""
    return quote(str(text), safe="")


def slug(text: Any) -> str:
    """For an id in a page: unique for what is different, and made of harmless characters."""
    return "s-" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", str(text))
