"""The ASGI application: guards outside, one list of routes inside."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from lbfast.web import (
    api,
    pages_account,
    pages_alerts,
    pages_backup,
    pages_change,
    pages_clients,
    pages_commit,
    pages_config,
    pages_graphing,
    pages_graphs,
    pages_ha,
    pages_health,
    pages_history,
    pages_local,
    pages_login,
    pages_logs,
    pages_overview,
    pages_probe,
    pages_reports,
    pages_search,
    pages_users,
    pages_view,
    pages_wizard,
)
from lbfast.web.auth import HOME, is_api, public, refuse
from lbfast.web.guard import Bodies, Headers
from lbfast.web.render import error_page
from lbfast.web.said import said
from lbfast.web.state import WebState
from lbfast.web.static_files import static_routes

# Each has ``routes(state) -> list[BaseRoute]``; the API's modules belong into this list too.
PARTS: Final = (
    api,
    pages_login,
    pages_overview,
    pages_change,
    pages_probe,
    pages_clients,
    pages_commit,
    pages_config,
    pages_graphing,
    pages_graphs,
    pages_ha,
    pages_health,
    pages_history,
    pages_reports,
    pages_logs,
    pages_users,
    pages_account,
    pages_alerts,
    pages_backup,
    pages_local,
    pages_search,
    pages_view,
    pages_wizard,
)


def build_app(state: WebState) -> ASGIApp:
    """The application that the web process serves."""
    routes: list[BaseRoute] = [Route("/", _home), Route("/lbadmin", _home), *static_routes()]
    for part in PARTS:
        routes += part.routes(state)
    _check_gates(routes)
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Headers, is_tls=state.settings.tls), Middleware(Bodies)],
        exception_handlers={HTTPException: _on_http_error, Exception: _on_bug},
    )
    app.state.web = state
    return app


@public
async def _home(_request: Request) -> Response:
    return RedirectResponse(HOME, 303)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: said("There is no such page."), 405: said("This page cannot be used like this.")}
    message = texts.get(error.status_code, str(error.detail))
    if is_api(request):
        return refuse(request, error.status_code, message)
    return error_page(request, error.status_code, message)


async def _on_bug(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    message = said(
        "This is a fault of lbfast (%(name)s); its error output has more. Traffic is not concerned.",
        name=type(error).__name__,
    )
    if is_api(request):
        return refuse(request, 500, message)
    return error_page(request, 500, message)


def _check_gates(routes: Sequence[BaseRoute]) -> None:
    """A handler that says nothing about who may use it is a mistake that must not be served."""
    for route in routes:
        if isinstance(route, Mount):
            continue  # another application, with gates of its own
        if isinstance(route, Route) and not hasattr(route.endpoint, "role"):
            raise TypeError(f"{route.path}: the handler needs @require or @public")
