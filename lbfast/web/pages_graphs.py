"""Reports > Graphs and Availability: the past from data that lbfast keeps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import csv_of, services_of, text_of
from lbfast.web.auth import require, state_of
from lbfast.web.charts import Chart, Point, band, draw
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import page, why
from lbfast.web.state import WebState

YEAR: Final = 365 * 86_400
RANGES: Final = (
    ("1h", "1 hour", 3_600),
    ("6h", "6 hours", 6 * 3_600),
    ("1d", "1 day", 86_400),
    ("7d", "1 week", 7 * 86_400),
    ("30d", "1 month", 30 * 86_400),
    ("365d", "1 year", YEAR),
    ("1825d", "5 years", 5 * YEAR),
)
_COLUMNS: Final = ("service", "real", "availability")


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/reports/graphs", graphs, methods=["GET"]),
        Route("/lbadmin/reports/availability", availability, methods=["GET"]),
    ]


def seconds_of(word: str) -> tuple[str, int]:
    """The range of a query; an hour if it is none."""
    return next(((name, length) for name, _, length in RANGES if name == word), (RANGES[0][0], RANGES[0][2]))


@require("report")
async def graphs(request: Request) -> Response:
    service, real = text_of(request.query_params, "service"), text_of(request.query_params, "real")
    name, length = seconds_of(text_of(request.query_params, "range", 10))
    end = _moment(text_of(request.query_params, "end", 12))
    values: dict[str, Any] = {"services": [], "reals": [], "charts": [], "report": None, "fault": ""}
    try:
        services = await services_of(request)
        values["services"] = [it["label"] for it in services]
        found = next((it for it in services if it["label"] == service), None)
        values["reals"] = [it["label"] for it in found["real_servers"]] if found else []
        real = real if real in values["reals"] else ""
        service = service if found else ""
        report = await state_of(request).client.call(
            "series", service=service or None, real=real or None, range=length, end=end
        )
        values |= {"report": report, "charts": charts_of(report)}
    except (ControlError, ControlUnavailable) as error:
        values["fault"] = why(error)
    if "csv" in request.query_params and values["report"]:
        return _series_csv(values["report"])
    reach = values["report"]["reach"] if values["report"] else YEAR
    until = datetime.fromtimestamp(end, UTC).isoformat() if end is not None else None
    ranges = [it for it in RANGES if it[2] <= max(reach, YEAR)]
    past = _neighbours(end, length, reach, state_of(request).clock().timestamp())
    return await page(
        request,
        "graphs.html",
        **values,
        service=service,
        real=real,
        ranges=ranges,
        range=name,
        end=end,
        until=until,
        past=past,
    )


def _moment(text: str) -> int | None:
    """Unix time at the end of what is shown; None: now, and it goes on."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _neighbours(end: int | None, length: int, reach: int, now: float) -> tuple[int | None, int | None]:
    """Where the time before this one ends, and the time after it; None where there is nothing, or it is now."""
    until = now if end is None else end
    earlier = int(until) - length
    later = None if end is None or end + length >= now else end + length
    return earlier if earlier > now - reach else None, later


def charts_of(report: dict[str, Any]) -> list[Chart]:
    start, end, names = report["start"], report["end"], report["metrics"]

    def points(metric: str) -> list[Point]:
        place = names.index(metric) + 1
        return [(row[0], row[place]) for row in report["points"]]

    charts = [
        draw("Connections", "connections", start, end, [("open", points("connections"))]),
        draw("New connections", "opened", start, end, [("new", points("opened"))]),
        draw(
            "Traffic",
            "bytes_in",
            start,
            end,
            [("from clients", points("bytes_in")), ("to clients", points("bytes_out"))],
        ),
    ]
    if "cpu" in names:
        charts.append(draw("Processor", "cpu", start, end, [("CPU", points("cpu"))]))
        charts.append(draw("Memory", "memory", start, end, [("in use", points("memory"))]))
    else:
        charts.append(draw("Time to connect", "connect_ms", start, end, [("mean", points("connect_ms"))]))
        charts.append(draw("Failed connects", "failures", start, end, [("failed", points("failures"))]))
        charts.append(band("Health", start, end, points(names[6]), report["step"]))
    return charts


def _series_csv(report: dict[str, Any]) -> Response:
    keys = ["time", *report["metrics"]]
    return csv_of("series", (dict(zip(keys, row, strict=True)) for row in report["points"]), keys)


@require("report")
async def availability(request: Request) -> Response:
    name, length = seconds_of(text_of(request.query_params, "range", 10) or "30d")
    rows: list[dict[str, Any]] = []
    fault = ""
    try:
        rows = (await state_of(request).client.call("availability", range=length))["real_servers"]
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    if "csv" in request.query_params:
        return csv_of("availability", rows, _COLUMNS)
    return await page(request, "availability.html", rows=rows, fault=fault, ranges=RANGES, range=name)
