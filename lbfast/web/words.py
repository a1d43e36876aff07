"""Numbers, times and states as people read them.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from lbfast.model.visible import size
from lbfast.web.said import joined, said

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


def rate(value: float) -> str:
    return f"{size(value)}/s"


def count(value: float) -> str:
    """1,234."""
    return f"{value:,.0f}"


def span(seconds: float | None) -> str:
    """A span in its two largest units."""
    if seconds is None:
        return ""
    if seconds < 1:
        return said("%(num)s ms", num=f"{seconds * 1000:.0f}")
    whole = int(seconds)
    if whole < 60:
        return said("%(num)s s", num=f"{seconds:.1f}" if seconds < 10 and seconds != whole else whole)
    units = (
        (86_400, said("%(num)s d", num=whole // 86_400)),
        (3_600, said("%(num)s h", num=whole % 86_400 // 3_600)),
        (60, said("%(num)s min", num=whole % 3_600 // 60)),
        (1, said("%(num)s s", num=whole % 60)),
    )
    first = next(place for place, (size_, _) in enumerate(units) if whole >= size_)
    (size_, text), (lower, rest) = units[first : first + 2]
    return joined(text, rest) if whole % size_ // lower else text


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


def quoted(text: Any) -> str:
    """For a query of an address."""
    return quote(str(text), safe="")


def slug(text: Any) -> str:
    """For an id in a page: unique for what is different, and made of harmless characters."""
    return "s-" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", str(text))
