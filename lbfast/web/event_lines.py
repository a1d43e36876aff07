"""An event as one line for a page.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbfast.web.words import moment, shown, size, span

Event = Mapping[str, Any]
GOOD, BAD, PLAIN = "good", "bad", ""


def event_line(event: Event) -> dict[str, str]:
    """``kind``: what it is about; ``tone``: good, bad or nothing; ``text``: the sentence."""
    kind = str(event["event"])
    makers = {"open": _open, "close": _close, "refuse": _refuse, "connect_fail": _failed}
    maker = makers.get(kind)
    text = maker(event) if maker else shown(event.get("message", ""))
    family = "connections" if maker else kind
    return {
        "at": moment(event.get("at")),
        "kind": family,
        "event": {"connect_fail": "failed"}.get(kind, kind),
        "where": _where(event),
        "text": text,
        "tone": _tone(kind, text),
    }


def _where(event: Event) -> str:
    return " / ".join(shown(event[key]) for key in ("service", "real") if event.get(key))


def _tone(kind: str, text: str) -> str:
    if kind in ("refuse", "connect_fail") or (kind == "health" and (" down" in text or "fail" in text)):
        return BAD
    return GOOD if kind == "health" and " is up" in text else PLAIN


def _open(event: Event) -> str:
    attempts = f", attempt {event['attempts']}" if event.get("attempts", 1) > 1 else ""
    return f"{event['client']} → {shown(event.get('real') or '?')} ({event.get('reason')}{attempts})"


def _close(event: Event) -> str:
    amount = f"{size(event.get('bytes_in', 0))} in, {size(event.get('bytes_out', 0))} out"
    took = span((event.get("duration_ms") or 0) / 1000)
    return f"{event['client']} → {shown(event.get('real') or '?')} ({amount} in {took}, {_end(event)})"


def _refuse(event: Event) -> str:
    return f"{event['client']} refused ({_end(event)})"


def _failed(event: Event) -> str:
    error = shown(event.get("error") or "failed")
    return f"{event['client']} → {shown(event.get('real') or '?')} (attempt {event.get('attempts', 1)}, {error})"


def _end(event: Event) -> str:
    by = f" by {event['by']}" if event.get("by") not in (None, "nobody") else ""
    error = f", {shown(event['error'])}" if event.get("error") else ""
    return f"{event.get('ended')}{by}{error}"
