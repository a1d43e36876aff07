"""Maintenance > Alerts: who is told of what, a test of every way, and what went wrong with sending."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import back, page, why
from lbfast.web.state import WebState
from lbfast.web.tables import CHANGED, TableForm, read_table, save_table

PLACE: Final = "/lbadmin/maintenance/alerts"
TEST_S: Final = 60.0  # a mail server may take its time


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, alerts, methods=["GET"]), Route(PLACE, act, methods=["POST"])]


@require("configure")
async def alerts(request: Request) -> Response:
    return await _show(request, await read_table(request, "alerts"))


async def _show(request: Request, table: TableForm, tested: Any = None, fault: str = "") -> Response:
    ways: list[dict[str, Any]] = []
    try:
        ways = (await state_of(request).client.call("alerts"))["ways"]
    except (ControlError, ControlUnavailable) as error:
        fault = fault or why(error)
    status = 422 if fault or not table.outcome.is_accepted else 200
    return await page(request, "alerts.html", status, table=table, ways=ways, tested=tested, fault=fault)


@require("configure")
async def act(request: Request) -> Response:
    form = await request.form()
    if text_of(form, "do", 20) == "test":
        return await _test(request)
    table = await save_table(request, "alerts", form)
    if not table.outcome.is_accepted:
        return await _show(request, table)
    return back(request, PLACE, "good", CHANGED)


async def _test(request: Request) -> Response:
    state, identity = state_of(request), identity_of(request)
    table = await read_table(request, "alerts")
    try:
        report = await state.client.call("alerts_test", identity.by, TEST_S)
    except (ControlError, ControlUnavailable) as error:
        return await _show(request, table, None, why(error))
    state.audit.add(identity.by, "test alert", "", source_of(request))
    return await _show(request, table, report["ways"])
