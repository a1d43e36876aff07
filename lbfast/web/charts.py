"""Time series as SVG, drawn on the server.  Pure: points in, numbers for a template out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lbfast.model.visible import size
from lbfast.web.words import count, rate, span

WIDTH: Final = 760.0
HEIGHT: Final = 180.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 8.0, 10.0, 22.0
_GRID: Final = 4
_LABELS: Final = 6

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Mark:
    """A line of the grid and its words."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """``curves``: (name, path); a gap in the data is a gap in the path.  ``rows`` say the same in words."""

    title: str
    curves: tuple[tuple[str, str], ...]
    ups: tuple[tuple[float, float, str], ...]  # bands: x, width, class
    marks: tuple[Mark, ...]
    hours: tuple[Mark, ...]
    rows: tuple[tuple[str, str, str, str], ...]  # name, last, mean, highest
    is_empty: bool


def per_second(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if 0 < value < 10 else span(value / 1000)


def percent(value: float) -> str:
    return f"{value:.0f} %"


UNITS: Final[dict[str, Callable[[float], str]]] = {
    "connections": count,
    "opened": per_second,
    "bytes_in": rate,
    "bytes_out": rate,
    "connect_ms": milliseconds,
    "failures": per_second,
    "cpu": percent,
    "memory": percent,
    "size": size,
}


def draw(title: str, unit: str, start: float, end: float, series: Sequence[tuple[str, Sequence[Point]]]) -> Chart:
    """One or two curves over a common time."""
    show = UNITS[unit]
    known = [value for _, points in series for _, value in points if value is not None]
    top = _round_up(max(known, default=0.0))
    marks = tuple(Mark(_y(top * step / _GRID, top), show(top * step / _GRID)) for step in range(_GRID + 1))
    curves = tuple((name, _path(points, start, end, top)) for name, points in series)
    rows = tuple(_row(name, [value for _, value in points if value is not None], show) for name, points in series)
    return Chart(title, curves, (), marks, hours_of(start, end), rows, not known)


def band(title: str, start: float, end: float, points: Sequence[Point], step: float) -> Chart:
    """Health as a band: green, red, or grey where nothing is known."""
    pieces: list[tuple[float, float, str]] = []
    for at, value in points:
        kind = "bar-none" if value is None else "bar-good" if value >= 0.999 else "bar-bad"
        x, width = _x(at, start, end), max(1.0, _x(at + step, start, end) - _x(at, start, end))
        if pieces and pieces[-1][2] == kind and x - (pieces[-1][0] + pieces[-1][1]) < 1.0:
            pieces[-1] = (pieces[-1][0], round(x + width - pieces[-1][0], 1), kind)
        else:
            pieces.append((round(x, 1), round(width, 1), kind))
    return Chart(title, (), tuple(pieces), (), hours_of(start, end), (), not pieces)


def hours_of(start: float, end: float) -> tuple[Mark, ...]:
    form = (
        "%H:%M" if end - start <= 2 * 86_400 else "%m-%d" if end - start < 300 * 86_400 else "%Y-%m"
    )  # in any language
    times = [start + (end - start) * place / _LABELS for place in range(_LABELS + 1)]
    return tuple(Mark(round(_x(at, start, end), 1), datetime.fromtimestamp(at).strftime(form)) for at in times)


def _row(name: str, values: list[float], show: Callable[[float], str]) -> tuple[str, str, str, str]:
    if not values:
        return name, "–", "–", "–"
    return name, show(values[-1]), show(sum(values) / len(values)), show(max(values))


def _path(points: Sequence[Point], start: float, end: float, top: float) -> str:
    path, is_pen_down = [], False
    for at, value in points:
        if value is None:
            is_pen_down = False
            continue
        path.append(f"{'L' if is_pen_down else 'M'}{_x(at, start, end):.1f} {_y(value, top):.1f}")
        is_pen_down = True
    return "".join(path)


def _x(at: float, start: float, end: float) -> float:
    share = (at - start) / (end - start) if end > start else 0.0
    return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, share))


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)


def _round_up(value: float) -> float:
    """1, 2, 4 or 10 times a power of ten: what reads well at a quarter of it."""
    if value <= 0:
        return 4.0
    power = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 1.0
    return next(step * power for step in (1, 2, 4, 8, 10, 20) if step * power >= value)
