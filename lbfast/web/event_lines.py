"""An event as one line for a page.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbfast.model.visible import clean, size
from lbfast.web.said import joined, said
from lbfast.web.words import moment, span

Event = Mapping[str, Any]
GOOD, BAD, PLAIN = "good", "bad", ""


def event_line(event: Event) -> dict[str, str]:
    """``kind``: what it is about; ``tone``: good, bad or nothing; ``text``: the sentence."""
    kind = str(event["event"])
    makers = {"open": _open, "close": _close, "refuse": _refuse, "connect_fail": _failed}
    maker = makers.get(kind)
    text = maker(event) if maker else clean(event.get("message", ""))
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
    return " / ".join(clean(event[key]) for key in ("service", "real") if event.get(key))


def _tone(kind: str, text: str) -> str:
    if kind in ("refuse", "connect_fail") or (kind == "health" and (" down" in text or "fail" in text)):
        return BAD
    return GOOD if kind == "health" and " is up" in text else PLAIN


def _open(event: Event) -> str:
    parts = [str(event.get("reason"))]
    if event.get("attempts", 1) > 1:
        parts.append(said("attempt %(count)s", count=event["attempts"]))
    return _line(event, parts)


def _close(event: Event) -> str:
    amount = said(
        "%(in)s in, %(out)s out in %(time)s",
        **{"in": size(event.get("bytes_in", 0)), "out": size(event.get("bytes_out", 0))},
        time=span((event.get("duration_ms") or 0) / 1000),
    )
    return _line(event, [amount, *_end(event)])


def _refuse(event: Event) -> str:
    return said("%(client)s refused (%(end)s)", client=event["client"], end=joined(*_end(event), gap=", "))


def _failed(event: Event) -> str:
    attempt = said("attempt %(count)s", count=event.get("attempts", 1))
    return _line(event, [attempt, clean(event["error"]) if event.get("error") else said("failed")])


def _line(event: Event, parts: list[str]) -> str:
    """Who went where, and what there is to say of it."""
    where = f"{event['client']} → {clean(event.get('real') or '?')}"
    return joined(where, joined("(", joined(*parts, gap=", "), ")", gap=""))


def _end(event: Event) -> list[str]:
    by = event.get("by") not in (None, "nobody")
    ended = said("%(ended)s by %(by)s", ended=event.get("ended"), by=event["by"]) if by else str(event.get("ended"))
    return [ended, *([clean(event["error"])] if event.get("error") else [])]
