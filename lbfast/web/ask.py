"""Small helpers of pages that show what lbfast answers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lbfast.web.auth import state_of

Report = dict[str, Any]


async def services_of(request: Request) -> list[Report]:
    """The overview's services; ControlUnavailable when lbfast cannot be asked."""
    report = await state_of(request).client.call("overview")
    services: list[Report] = report["virtual_services"]
    return services


def chosen(request: Request, services: Sequence[Report]) -> str:
    """The service that the query names, else the first."""
    label = request.query_params.get("service", "")
    labels = [it["label"] for it in services]
    return label if label in labels else (labels[0] if labels else "")


def text_of(values: Any, name: str, most: int = 300) -> str:
    """A field of a form or query, trimmed."""
    value = values.get(name)
    return value.strip()[:most] if isinstance(value, str) else ""


def csv_of(name: str, rows: Iterable[Report], keys: Sequence[str]) -> Response:
    """A table as a download.  A spreadsheet must not take a cell for a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(keys)
    for row in rows:
        writer.writerow([_cell(row.get(key)) for key in keys])
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value
