"""System Overview: every virtual service and real server, live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lbfast.web.auth import HOME, identity_of, require, state_of
from lbfast.web.certificate_notes import certificate_notes
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.live import Live
from lbfast.web.render import fragment, page, why
from lbfast.web.state import WebState

MOST_OPEN: Final = 25  # services that are shown with their real servers; of more, those that have a problem


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(HOME, overview, methods=["GET"]),
        Route("/lbadmin/overview/rows", rows, methods=["GET"]),
        Route("/lbadmin/overview/live", live, methods=["GET"]),
    ]


@require("report")
async def overview(request: Request) -> Response:
    try:
        report = await state_of(request).client.call("overview")
        seen = await state_of(request).client.call("certificates")
    except (ControlError, ControlUnavailable) as error:
        return await page(
            request,
            "overview.html",
            503,
            services=[],
            fault=why(error),
            figures={},
            sparks={},
            is_many=False,
            is_open=False,
            certificates=(),
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
        is_open=False,
        certificates=certificate_notes(state_of(request).certificate, seen["real_servers"], datetime.now(UTC)),
    )


@require("report", quiet=True)
async def rows(request: Request) -> Response:
    """The rows alone, when services or servers came or went; ``service``: of one, with its reals; ``open``: all."""
    try:
        report = await state_of(request).client.call("overview")
    except (ControlError, ControlUnavailable) as error:
        return Response(why(error), 503, media_type="text/plain")
    services, wanted = report["virtual_services"], request.query_params.get("service")
    is_open = wanted is not None or "open" in request.query_params
    shown = [it for it in services if wanted in (None, it["label"])]
    return HTMLResponse(
        fragment(
            request,
            "overview_rows.html",
            services=shown,
            sparks=live_of(request).sparks.all(),
            is_many=len(services) > MOST_OPEN,
            is_open=is_open,
        )
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


def live_of(request: Request) -> Live:
    found = state_of(request).live
    assert found is not None
    return found
