"""What is to be said about certificates on the overview: the web interface's own, and those of real servers.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lbfast.web.said import counted, said
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
        text = counted(
            "And the certificate of %(num)s more real server.",
            "And certificates of %(num)s more real servers.",
            len(seen) - MOST_SHOWN,
        )
        notes.append(Note(text, "/lbadmin/logs/events"))
    return notes


def own_notes(own: Certificate, moment: datetime) -> list[Note]:
    left = own.not_after - moment
    if left > WARN_BEFORE:
        return []
    href = "/lbadmin/local/certificate"
    day = f"{own.not_after:%Y-%m-%d}"
    if left <= timedelta(0):
        return [Note(said("The certificate of this web interface ended on %(day)s.", day=day), href, is_over=True)]
    text = counted(
        "The certificate of this web interface ends in %(num)s day, on %(day)s.",
        "The certificate of this web interface ends in %(num)s days, on %(day)s.",
        max(1, left.days),
        day=day,
    )
    return [Note(text, href)]


def _note_of(found: Mapping[str, Any]) -> Note:
    warning = str(found["warnings"][0])
    text = warning if warning.startswith(f"{found['service']}:") else f"{found['service']}: {found['real']}: {warning}"
    href = f"/lbadmin/cluster/health?service={quoted(found['service'])}&real={quoted(found['real'])}"
    return Note(text, href, is_over=" expired " in warning)
