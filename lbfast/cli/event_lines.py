"""One readable line for each event of the log; pure."""

from __future__ import annotations

from typing import Any

from lbfast.cli.clean import clean, clock, duration, plural, size

_NAMES = {"open": "open", "close": "close", "refuse": "refuse", "connect_fail": "failed"}


def event_line(event: dict[str, Any], with_service: bool = True) -> str:
    """``14:03:22 open   10.1.2.3 -> Symphony Server 2  (table)``."""
    kind = str(event.get("event", ""))
    body = _BODIES[kind](event, with_service) if kind in _BODIES else _message(event, with_service)
    return f"{clock(event.get('at'))} {clean(_NAMES.get(kind, kind)):<6} {body}"


def _open(event: dict[str, Any], with_service: bool) -> str:
    facts = [str(event.get("reason", ""))]
    if int(event.get("attempts") or 1) > 1:
        facts.append(f"attempt {event['attempts']}")
    return f"{_way(event, with_service)}  ({', '.join(clean(fact) for fact in facts if fact)})"


def _close(event: dict[str, Any], with_service: bool) -> str:
    facts = f"{size(event.get('bytes_in', 0))} in, {size(event.get('bytes_out', 0))} out"
    facts += f" in {duration(event.get('duration_ms', 0) / 1000)}"
    ended, by = event.get("ended"), event.get("by")
    ending = clean(ended) + (f" by {clean(by)}" if by not in (None, "nobody") else "") if ended else ""
    error = f", {clean(event['error'])}" if event.get("error") else ""
    return f"{_way(event, with_service)}  ({facts}{', ' if ending else ''}{ending}{error})"


def _refuse(event: dict[str, Any], with_service: bool) -> str:
    where = clean(event.get("service", "")) if with_service else f"port {event.get('port')}"
    error = f", {clean(event['error'])}" if event.get("error") else ""
    tries = int(event.get("attempts") or 0)
    tried = f", {plural(tries, 'attempt')}" if tries else ""
    return f"{clean(event.get('client', '?'))} -> {where}  ({clean(event.get('ended', ''))}{error}{tried})"


def _connect_fail(event: dict[str, Any], with_service: bool) -> str:
    facts = [f"attempt {event['attempts']}"] if event.get("attempts") else []
    facts.append(clean(event.get("error") or "no connection"))
    return f"{_way(event, with_service)}  ({', '.join(facts)})"


def _message(event: dict[str, Any], with_service: bool) -> str:
    names = [event.get("service") if with_service else None, event.get("real")]
    message = clean(event.get("message", ""))
    place = " / ".join(clean(name) for name in names if name and clean(name) not in message)
    return f"{place}: {message}" if place else message


def _way(event: dict[str, Any], with_service: bool) -> str:
    real = clean(event.get("real") or "-")
    service = f"{clean(event['service'])} / " if with_service and event.get("service") else ""
    return f"{clean(event.get('client', '?'))} -> {service}{real}"


_BODIES = {"open": _open, "close": _close, "refuse": _refuse, "connect_fail": _connect_fail}
