"""Persistence: which client belongs where and why; clear it, pin it."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import chosen, csv_of, services_of, text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import back, page, why
from lbfast.web.said import counted, said
from lbfast.web.state import WebState
from lbfast.web.words import quoted

PLACE: Final = "/lbadmin/cluster/persistence"
MOST_SHOWN: Final = 200
_COLUMNS: Final = ("client", "real", "state", "pinned", "reason", "connections", "since", "closed", "expires_in")


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, persistence, methods=["GET"]), Route(PLACE, change, methods=["POST"])]


@require("report")
async def persistence(request: Request) -> Response:
    state = state_of(request)
    client = text_of(request.query_params, "client", 64)
    values: dict[str, Any] = {
        "client": client,
        "entries": [],
        "count": 0,
        "capacity": 0,
        "explained": None,
        "fault": "",
        "reals": [],
    }
    try:
        services = await services_of(request)
        service = chosen(request, services)
        values |= {"services": [it["label"] for it in services], "service": service}
        if service:
            values["reals"] = next(it["real_servers"] for it in services if it["label"] == service)
            wanted = 100_000 if "csv" in request.query_params else MOST_SHOWN
            values |= await state.client.call("persistence_show", service=service, client=client or None, limit=wanted)
            if client and "/" not in client:
                values["explained"] = await state.client.call("explain", service=service, client=client)
    except (ControlError, ControlUnavailable) as error:
        values = {"services": [], "service": "", **values, "fault": why(error)}
        if client and isinstance(error, ControlError) and error.code == "no_persistence":
            values["explained"] = await state.client.call("explain", service=values["service"], client=client)
    if "csv" in request.query_params:
        return csv_of("persistence", values["entries"], _COLUMNS)
    return await page(request, "persistence.html", **values)


@require("operate")
async def change(request: Request) -> Response:
    """Clear one client, clear a real server's or all, or pin a client."""
    form = await request.form()
    what, service, client, real = (text_of(form, name) for name in ("do", "service", "client", "real"))
    state, identity = state_of(request), identity_of(request)
    place = f"{PLACE}?service={quoted(service)}&client={quoted(client)}"
    try:
        if what == "pin":
            await state.client.call("persistence_pin", by=identity.by, service=service, client=client, real=real)
            text = said("%(client)s is pinned to %(real)s.", client=client, real=real)
        elif what == "clear":
            removed = await state.client.call(
                "persistence_clear", by=identity.by, service=service, client=client or None, real=real or None
            )
            text = counted("%(num)s entry removed.", "%(num)s entries removed.", removed["removed"])
        else:
            return back(request, place, "bad", said("There is nothing to be done of that name."))
    except (ControlError, ControlUnavailable) as error:
        return back(request, place, "bad", why(error))
    detail = json.dumps({"service": service, "client": client, "real": real})
    state.audit.add(identity.by, f"persistence {what}", detail, source_of(request))
    return back(request, place, "good", text)
