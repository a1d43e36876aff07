"""An entry of an event ring turned into the record that people, logs and programs read; pure."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lbfast.control.catalog import Catalog
from lbfast.model.state import Ended, EndedBy, EventKind, Reason

if TYPE_CHECKING:
    from lbfast._ring import Event

Record = dict[str, Any]


def connection_id(number: int) -> str:
    """The same text in ``connections``, in ``events`` and in the log, whichever worker has it by now."""
    return f"{number >> 40}-{number & 0xFF_FFFF_FFFF}"


def connection_record(event: Event, catalog: Catalog) -> Record:
    """The record of one connection event; keys that do not apply are left out."""
    kind = EventKind(event["kind"])
    record: Record = {
        "at": datetime.fromtimestamp(event["at"]).astimezone().isoformat(timespec="milliseconds"),
        "event": str(kind),
        "id": connection_id(event["id"]),
        "service": catalog.service_label(event["service"]),
        "client": event["client"],
        "client_port": event["client_port"],
        "port": event["port"],
    }
    if event["real"] >= 0:
        record["real"] = catalog.real_label(event["real"])
    if event["reason"] != Reason.NONE:
        record["reason"] = word(Reason, event["reason"])
    if event["previous"] >= 0 and event["previous"] != event["real"]:
        record["previous"] = catalog.real_label(event["previous"])
    if event["attempts"]:
        record["attempts"] = event["attempts"]
    if kind is EventKind.OPEN or (kind is EventKind.CLOSE and event["connect_ms"]):
        record["connect_ms"] = event["connect_ms"]
    if kind in (EventKind.CLOSE, EventKind.REFUSE):
        record |= _ending(event)
    if event["errno"]:
        record["error"] = os.strerror(event["errno"])
    return record


def _ending(event: Event) -> Record:
    ending: Record = {"duration_ms": event["duration_ms"], "bytes_in": event["bytes_in"]}
    ending["bytes_out"] = event["bytes_out"]
    if event["ended"] != Ended.NONE:
        ending["ended"] = word(Ended, event["ended"])
    if event["by"] != EndedBy.NOBODY:
        ending["by"] = word(EndedBy, event["by"])
    return ending


def word(enum: type[Reason] | type[Ended] | type[EndedBy], number: int) -> str:
    """The word of a number, or the number itself when a newer writer knows more words."""
    try:
        return str(enum(number))
    except ValueError:
        return str(number)
