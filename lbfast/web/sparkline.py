"""A little graph as the path of an SVG of 100 by 20 units.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WIDTH: Final = 100.0
HEIGHT: Final = 20.0
POINTS: Final = 60


def spark_path(points: Sequence[float]) -> str:
    """The newest point at the right edge; the highest at the top, a flat line of nothing at the bottom."""
    kept = list(points)[-POINTS:]
    if not kept:
        return ""
    top = max(*kept, 1.0) if len(kept) > 1 else max(kept[0], 1.0)
    step = WIDTH / (POINTS - 1)
    left = WIDTH - step * (len(kept) - 1)
    places = [(left + step * i, HEIGHT - 1 - (HEIGHT - 2) * value / top) for i, value in enumerate(kept)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
