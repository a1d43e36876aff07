"""What is to be said about certificates on the overview: the web interface's own, and those of real servers.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lbfast.web.words import quoted

if TYPE_CHECKING:
    from lbfast.web.tls import Certificate

WARN_BEFORE: Final = timedelta(days=30)
MOST_SHOWN: Final = 5


@dataclass(frozen=True)
class Note:
    """``is_over``: clients are refused already, or warned by their browsers."""

    text: str
    href: str
    is_over: bool = False


def certificate_notes(own: Certificate | None, found: Sequence[Mapping[str, Any]], moment: datetime) -> list[Note]:
    """The own one first, then of real servers the first few and how many more there are."""
    notes = [] if own is None else own_notes(own, moment)
    seen = [_note_of(it) for it in found]
    notes += seen[:MOST_SHOWN]
    if len(seen) > MOST_SHOWN:
        notes.append(Note(f"And certificates of {len(seen) - MOST_SHOWN} more real servers.", "/lbadmin/logs/events"))
    return notes


def own_notes(own: Certificate, moment: datetime) -> list[Note]:
    left = own.not_after - moment
    if left > WARN_BEFORE:
        return []
    href = "/lbadmin/local/certificate"
    if left <= timedelta(0):
        return [Note(f"The certificate of this web interface ended on {own.not_after:%Y-%m-%d}.", href, is_over=True)]
    days = max(1, left.days)
    many = "" if days == 1 else "s"
    return [Note(f"The certificate of this web interface ends in {days} day{many}, on {own.not_after:%Y-%m-%d}.", href)]


def _note_of(found: Mapping[str, Any]) -> Note:
    warning = str(found["warnings"][0])
    text = warning if warning.startswith(f"{found['service']}:") else f"{found['service']}: {found['real']}: {warning}"
    href = f"/lbadmin/cluster/health?service={quoted(found['service'])}&real={quoted(found['real'])}"
    return Note(text, href, is_over=" expired " in warning)
