"""System Overview: every virtual service and real server, live, and the operator's three buttons."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lbfast.web.auth import HOME, identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.drain_plan import DrainPlan, plan_drain
from lbfast.web.live import Live
from lbfast.web.render import back, fragment, page, why
from lbfast.web.state import WebState

MOST_OPEN: Final = 25  # services that are shown with their real servers; of more, those that have a problem
VERBS: Final = {"drain": "drain", "halt": "halt", "online": "online"}
DONE: Final = {"drain": "drains", "halt": "is halted", "online": "is online"}


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(HOME, overview, methods=["GET"]),
        Route("/lbadmin/overview/rows", rows, methods=["GET"]),
        Route("/lbadmin/overview/live", live, methods=["GET"]),
        Route("/lbadmin/overview/change", change_form, methods=["GET"]),
        Route("/lbadmin/overview/change", change, methods=["POST"]),
    ]


@require("report")
async def overview(request: Request) -> Response:
    try:
        report = await state_of(request).client.call("overview")
    except (ControlError, ControlUnavailable) as error:
        return await page(
            request, "overview.html", 503, services=[], fault=why(error), figures={}, sparks={}, is_many=False
        )
    services = report["virtual_services"]
    feed = live_of(request)
    feed.start()
    return await page(
        request,
        "overview.html",
        services=services,
        fault="",
        figures=feed.summary,
        sparks=feed.sparks.all(),
        is_many=len(services) > MOST_OPEN,
    )


@require("report", quiet=True)
async def rows(request: Request) -> Response:
    """The rows alone, when services or servers came or went."""
    try:
        report = await state_of(request).client.call("overview")
    except (ControlError, ControlUnavailable) as error:
        return Response(why(error), 503, media_type="text/plain")
    services = report["virtual_services"]
    sparks = live_of(request).sparks.all()
    return HTMLResponse(
        fragment(request, "overview_rows.html", services=services, sparks=sparks, is_many=len(services) > MOST_OPEN)
    )


@require("report", quiet=True)
async def live(request: Request) -> Response:
    """Server-sent events, for as long as the page is open and its session lives."""
    return StreamingResponse(
        _while_allowed(request), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def _while_allowed(request: Request) -> AsyncIterator[bytes]:
    sessions, users = state_of(request).sessions, state_of(request).users
    identity = identity_of(request)
    async for message in live_of(request).feed():
        if identity.digest and not sessions.is_alive(identity.digest):
            yield b"event: ended\ndata: {}\n\n"
            return
        if users.find(identity.name) is None and identity.digest:
            return
        yield message


@require("operate")
async def change_form(request: Request) -> Response:
    """What a drain, a halt or its end would mean, before it is done."""
    verb, service, real = _asked(request.query_params)
    if verb not in VERBS:
        return back(request, HOME, "bad", "There is nothing to be done of that name.")
    try:
        plan = await foresee(state_of(request), service, real)
    except (ControlError, ControlUnavailable) as error:
        return back(request, HOME, "bad", why(error))
    return await page(request, "change.html", verb=verb, service=service, real=real, plan=plan)


@require("operate")
async def change(request: Request) -> Response:
    form = await request.form()
    verb, service, real = _asked(form)
    reason = str(form.get("reason") or "").strip()[:500]
    state, identity = state_of(request), identity_of(request)
    if verb not in VERBS:
        return back(request, HOME, "bad", "There is nothing to be done of that name.")
    try:
        result = await state.client.call(verb, by=identity.by, service=service, real=real, reason=reason)
    except (ControlError, ControlUnavailable) as error:
        return back(request, HOME, "bad", why(error))
    state.audit.add(
        identity.by, verb, json.dumps({"service": service, "real": real, "reason": reason}), source_of(request)
    )
    left = result["connections"]
    tail = f"; {left} connections are still open" if left and verb == "drain" else ""
    return back(request, HOME, "good", f"{real} of {service} {DONE[verb]}{tail}.")


async def foresee(state: WebState, service: str, real: str) -> DrainPlan:
    """What is known about whom a drain or halt would concern."""
    overview_ = await state.client.call("overview")
    found = next((it for it in overview_["virtual_services"] if it["label"] == service), None)
    if found is None:
        raise ControlError("no_such_service", f"There is no virtual service {service!r} any more.")
    server = next((it for it in found["real_servers"] if it["label"] == real), None)
    if server is None:
        raise ControlError("no_such_real", f"There is no real server {real!r} in {service!r} any more.")
    entries: list[dict[str, Any]] = []
    if server["clients"]:
        entries = (await state.client.call("persistence_show", service=service, limit=100_000))["entries"]
    connections = (await state.client.call("connections", service=service))["connections"]
    others = [it for it in found["real_servers"] if it["label"] != real]
    return plan_drain(
        server,
        others,
        [it for it in entries if it["real"] == real],
        [it for it in connections if it["real"] == real],
    )


def live_of(request: Request) -> Live:
    found = state_of(request).live
    assert found is not None
    return found


def _asked(values: Any) -> tuple[str, str, str]:
    verb, service, real = (str(values.get(name) or "")[:300] for name in ("do", "service", "real"))
    return verb, service, real
