"""Reports: connections now, and the clients that have most of them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import chosen, csv_of, services_of, text_of
from lbfast.web.auth import require, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import page, why
from lbfast.web.state import WebState

MOST_SHOWN: Final = 500
CROWD: Final = 20  # connections of one address that look like many people behind it
_COLUMNS: Final = (
    *("id", "worker", "client", "client_port", "port", "real", "phase", "reason"),
    *("opened", "idle", "bytes_in", "bytes_out"),
)


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/reports", _first, methods=["GET"]),
        Route("/lbadmin/reports/connections", connections, methods=["GET"]),
        Route("/lbadmin/reports/clients", clients, methods=["GET"]),
    ]


@require("report")
async def _first(_request: Request) -> Response:
    return RedirectResponse("/lbadmin/reports/graphs", 303)


@require("report")
async def connections(request: Request) -> Response:
    values = await _connections(request)
    if "csv" in request.query_params:
        return csv_of("connections", values["rows"], _COLUMNS)
    total = len(values["rows"])
    values["rows"] = sorted(values["rows"], key=lambda it: it["opened"], reverse=True)[:MOST_SHOWN]
    return await page(request, "connections.html", **values, total=total)


@require("report")
async def clients(request: Request) -> Response:
    values = await _connections(request)
    rows = top_clients(values.pop("rows"))
    if "csv" in request.query_params:
        return csv_of("clients", rows, ("client", "connections", "bytes_in", "bytes_out", "reals", "is_crowd"))
    return await page(request, "top_clients.html", **values, rows=rows[:MOST_SHOWN], crowd=CROWD)


async def _connections(request: Request) -> dict[str, Any]:
    client = text_of(request.query_params, "client", 64)
    values: dict[str, Any] = {"services": [], "service": "", "client": client, "rows": [], "fault": ""}
    try:
        services = await services_of(request)
        values["services"] = [it["label"] for it in services]
        values["service"] = service = chosen(request, services)
        if service:
            report = await state_of(request).client.call("connections", service=service, client=client or None)
            values["rows"] = report["connections"]
    except (ControlError, ControlUnavailable) as error:
        values["fault"] = why(error)
    return values


def top_clients(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By client address, those with most connections first."""
    counts = Counter(row["client"] for row in rows)
    found = {
        client: {"client": client, "connections": count, "bytes_in": 0, "bytes_out": 0}
        for client, count in counts.items()
    }
    reals: dict[str, set[str]] = {client: set() for client in counts}
    for row in rows:
        one = found[row["client"]]
        one["bytes_in"] += row["bytes_in"]
        one["bytes_out"] += row["bytes_out"]
        if row["real"]:
            reals[row["client"]].add(row["real"])
    for client, one in found.items():
        one["reals"] = ", ".join(sorted(reals[client]))
        one["is_crowd"] = one["connections"] >= CROWD
    return sorted(found.values(), key=lambda it: (-it["connections"], it["client"]))
