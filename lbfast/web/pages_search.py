"""Logs > Search: the kept log by time, client, service, server, reason and words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import csv_of, services_of, text_of
from lbfast.web.auth import require, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.event_lines import event_line
from lbfast.web.render import page, why
from lbfast.web.state import WebState

KINDS: Final = ("connections", "health", "audit", "system")
SPANS: Final = (("1h", "last hour", 1), ("1d", "last day", 24), ("7d", "last week", 168), ("", "all that is kept", 0))
MOST_SHOWN: Final = 500
_FIELDS: Final = ("kind", "client", "service", "real", "reason", "text")
_COLUMNS: Final = (
    *("at", "event", "service", "real", "client", "client_port", "port", "reason", "attempts", "connect_ms"),
    *("duration_ms", "bytes_in", "bytes_out", "ended", "by", "error", "message"),
)


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route("/lbadmin/logs/search", search, methods=["GET"])]


@require("report")
async def search(request: Request) -> Response:
    wanted = {name: text_of(request.query_params, name, 200) for name in _FIELDS}
    word = text_of(request.query_params, "span", 5) if "span" in request.query_params else "1d"
    hours = next((it[2] for it in SPANS if it[0] == word), 24)
    since = (datetime.now().astimezone() - timedelta(hours=hours)).isoformat(timespec="seconds") if hours else None
    is_csv = "csv" in request.query_params
    found: dict[str, Any] = {"records": [], "is_cut": False}
    labels: list[str] = []
    fault = ""
    try:
        labels = [it["label"] for it in await services_of(request)]
        args: dict[str, Any] = {name: value for name, value in wanted.items() if value}
        found = await state_of(request).client.call("logs", limit=5_000 if is_csv else MOST_SHOWN, since=since, **args)
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    if is_csv:
        return csv_of("log", found["records"], _COLUMNS)
    rows = [event_line(it) for it in found["records"]]
    values = {"rows": rows, "is_cut": found["is_cut"], "fault": fault, "wanted": wanted, "span": word}
    return await page(request, "search.html", **values, kinds=KINDS, spans=SPANS, services=labels)
