"""Pictures of the figures: CPU time, throughput, latency, memory.  Needs matplotlib (the bench extra)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figures
from bench.tables import number, shown

COLOURS = {
    "none": "#9aa0a6",
    "haproxy": "#7b9ec9",
    "haproxy, splice": "#3b6ea5",
    "nginx": "#6aa84f",
    "envoy": "#b07cc6",
    "lbfast": "#d9822b",
    "lbfast, logging": "#f0b878",
}


def bars(axes: Any, figures: Figures, work: str, field: str, unit: str, scale: float, workers: int) -> bool:
    """One work as a bar a peer, with the spread as whiskers; False when there is nothing to draw."""
    peers = [peer for peer in figures.peers(workers) if figures.get(work, peer, field, workers)]
    if field == "cpu_us_per_unit":
        peers = [peer for peer in peers if peer != "none"]
    found = [figures.get(work, peer, field, workers) for peer in peers]
    points = [figure for figure in found if figure is not None]
    if not points:
        return False
    middles = [point.median * scale for point in points]
    spread = [
        [max(0.0, (point.median - point.low) * scale) for point in points],
        [max(0.0, (point.high - point.median) * scale) for point in points],
    ]
    axes.barh(peers, middles, xerr=spread, color=[COLOURS[peer] for peer in peers], ecolor="#555555", capsize=2)
    for place, middle in enumerate(middles):
        axes.text(middle, place, " " + number(middle), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_title(f"({work}) {figures.titles[work]}, {unit}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return True


def draw(
    figures: Figures, title: str, works: Sequence[str], field: str, unit: str, scale: float, out: Path, workers: int = 1
) -> Path | None:
    """A page of small charts, one a work; nothing when no work has the figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    works = [work for work in works if any(figures.get(work, p, field, workers) for p in figures.peers(workers))]
    if not works:
        return None
    columns = min(2, len(works))
    rows = -(-len(works) // columns)
    page, grid = pyplot.subplots(rows, columns, figsize=(6.2 * columns, 2.1 * rows + 0.5), squeeze=False)
    for axes, work in zip(grid.flat, [*works, *[""] * (rows * columns - len(works))], strict=True):
        name, by = (unit, scale) if unit or not work else shown(figures, work)
        if not work or not bars(axes, figures, work, field, name, by, workers):
            axes.set_visible(False)
    page.suptitle(title, fontsize=11)
    page.tight_layout()
    page.savefig(out, dpi=110)
    pyplot.close(page)
    return out


def draw_all(figures: Figures, folder: Path) -> list[Path]:
    """Every picture that these figures allow."""
    works = figures.works()
    closed = [work for work in works if not work.startswith(("f", "g"))]
    paced = [work for work in works if work.startswith("g")]
    wanted: list[tuple[str, Sequence[str], str, str, float, str, int]] = [
        ("CPU time of the whole proxy, one worker", closed, "cpu_us_per_unit", "", 1.0, "cpu", 1),
        ("CPU time of the whole proxy, two workers", closed, "cpu_us_per_unit", "", 1.0, "cpu2", 2),
        ("Throughput, one worker", closed, "units_per_second", "units/s", 1.0, "throughput", 1),
        ("Latency p99 at a fixed rate", paced, "p99_us", "us", 1.0, "latency-p99", 1),
        ("Latency p50 at a fixed rate", paced, "p50_us", "us", 1.0, "latency-p50", 1),
        ("Memory of an idle connection", ["f"], "memory_bytes_per_connection", "bytes", 1.0, "memory", 1),
    ]
    drawn = [
        draw(figures, title, kind, field, unit, by, folder / f"{name}.png", n)
        for title, kind, field, unit, by, name, n in wanted
    ]
    return [path for path in drawn if path]
