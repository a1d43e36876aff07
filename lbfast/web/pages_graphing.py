"""Local Configuration > Graphing: how far back the graphs reach, and what that costs on disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.model.series import Levels, most_bytes, series_of
from lbfast.model.upkeep import GraphSettings
from lbfast.web.auth import require, state_of
from lbfast.web.candidate import Data, read_candidate
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import back, page
from lbfast.web.state import WebState
from lbfast.web.tables import CHANGED, TableForm, read_table, save_table

PLACE: Final = "/lbadmin/local/graphing"


@dataclass(frozen=True)
class Cost:
    """Of what the candidate asks for."""

    levels: Levels
    series: int
    size: int
    free: int | None


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, graphing, methods=["GET"]), Route(PLACE, save, methods=["POST"])]


@require("configure")
async def graphing(request: Request) -> Response:
    return await _show(request, await read_table(request, "graphs"))


@require("configure")
async def save(request: Request) -> Response:
    table = await save_table(request, "graphs", await request.form())
    if not table.outcome.is_accepted:
        return await _show(request, table)
    return back(request, PLACE, "good", CHANGED)


async def _show(request: Request, table: TableForm) -> Response:
    cost = None
    try:
        cost = _cost((await read_candidate(state_of(request).client)).data, _free(request))
    except (ControlError, ControlUnavailable, ValidationError):
        pass  # the table tells why nothing can be read
    return await page(request, "graphing.html", 200 if table.outcome.is_accepted else 422, table=table, cost=cost)


def _cost(data: Data, free: int | None) -> Cost:
    levels = GraphSettings.model_validate(data.get("graphs", {})).levels
    services: list[Mapping[str, Any]] = data.get("virtual_service", [])
    series = series_of(len(service.get("real_server", [])) for service in services)
    return Cost(levels, series, most_bytes(series, levels), free)


def _free(request: Request) -> int | None:
    """Of the disk that holds the web interface's folder, and so the graphs beside it."""
    try:
        return shutil.disk_usage(state_of(request).folder).free
    except OSError:
        return None
