"""A virtual service in detail, and the health of one real server with its last probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import services_of, text_of
from lbfast.web.auth import HOME, require, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import back, page, why
from lbfast.web.said import said
from lbfast.web.state import WebState

HEALTH: Final = "/lbadmin/cluster/health"
_BAR: Final = 12.0
_HEIGHT: Final = 48.0


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/cluster", _first, methods=["GET"]),
        Route("/lbadmin/cluster/service", service_page, methods=["GET"]),
        Route(HEALTH, health_page, methods=["GET"]),
    ]


@require("report")
async def _first(_request: Request) -> Response:
    return RedirectResponse("/lbadmin/cluster/services", 303)


@require("report")
async def service_page(request: Request) -> Response:
    label = text_of(request.query_params, "service")
    try:
        services = await services_of(request)
        counted = await state_of(request).client.call("statistics")
        listed = await state_of(request).client.call("events", limit=1000)
    except (ControlError, ControlUnavailable) as error:
        return back(request, HOME, "bad", why(error))
    service = next((it for it in services if it["label"] == label), None)
    if service is None:
        return back(request, HOME, "bad", said("There is no virtual service %(label)s any more.", label=repr(label)))
    counters = next((it for it in counted["virtual_services"] if it["label"] == label), None)
    wanted = ("health", "admin")
    events = [it for it in listed["events"] if it.get("service") == label and it["event"] in wanted]
    return await page(request, "service.html", service=service, counters=counters, events=events[:-21:-1])


@require("report")
async def health_page(request: Request) -> Response:
    service, real = (text_of(request.query_params, name) for name in ("service", "real"))
    return await show_health(request, service, real, ())


async def show_health(request: Request, service: str, real: str, tests: Sequence[dict[str, Any]]) -> Response:
    """The last probes of a real server; ``tests`` is what *Test now* brought."""
    try:
        report = await state_of(request).client.call("health", service=service, real=real)
        services = await services_of(request)
    except (ControlError, ControlUnavailable) as error:
        return back(request, HOME, "bad", why(error))
    found = next(it for it in services if it["label"] == service)
    server = next((it for it in found["real_servers"] if it["label"] == real), found.get("fallback_server"))
    return await page(
        request, "health.html", report=report, server=server, bars=bars_of(report["results"]), tests=tests
    )


def bars_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The probes as bars from old to new: as high as they took long, a failed one as high as the slowest."""
    shown = list(reversed(results))
    longest = max((it["duration_ms"] for it in shown), default=0) or 1
    bars = []
    for place, result in enumerate(shown):
        share = 1.0 if not result["ok"] else max(0.08, result["duration_ms"] / longest)
        height = round(_HEIGHT * share, 1)
        bars.append({"x": place * _BAR, "y": _HEIGHT - height, "height": height, **result})
    return bars
