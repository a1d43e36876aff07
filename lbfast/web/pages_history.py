"""Maintenance > History: the configurations that ran, their differences, and one click back."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import back, page, why
from lbfast.web.said import said
from lbfast.web.state import WebState

PLACE: Final = "/lbadmin/maintenance/history"
COMMIT_S: Final = 180.0  # addresses, listeners, first verdicts, workers


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/maintenance", _first, methods=["GET"]),
        Route(PLACE, history, methods=["GET"]),
        Route(PLACE, revert, methods=["POST"]),
    ]


@require("operate")
async def _first(_request: Request) -> Response:
    return RedirectResponse(PLACE, 303)


@require("operate")
async def history(request: Request) -> Response:
    before, after = (_number(text_of(request.query_params, name, 12)) for name in ("before", "after"))
    values: dict[str, Any] = {"versions": [], "diff": None, "fault": "", "running": None}
    client = state_of(request).client
    try:
        report = await client.call("history")
        values |= {"versions": report["versions"], "running": report["version"]}
        if before or after:
            values["diff"] = await client.call("diff", before=before, after=after)
    except (ControlError, ControlUnavailable) as error:
        values["fault"] = why(error)
    return await page(request, "history.html", **values)


@require("configure")
async def revert(request: Request) -> Response:
    form = await request.form()
    number, reason = _number(text_of(form, "version", 12)), text_of(form, "reason", 500)
    state, identity = state_of(request), identity_of(request)
    try:
        result = await state.client.call("revert", by=identity.by, timeout=COMMIT_S, version=number, reason=reason)
    except (ControlError, ControlUnavailable) as error:
        return back(request, PLACE, "bad", why(error))
    state.audit.add(identity.by, "revert", f"to version {number}, now {result['version']}", source_of(request))
    return back(
        request,
        PLACE,
        "good",
        said("Version %(number)s runs again, as version %(version)s.", number=number, version=result["version"]),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
