"""Figures as Markdown tables.  Pure text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.figures import SHOWN_UNIT, Figure, Figures, Verdict, judge

Cell = Callable[[str, str], str]


def number(value: float) -> str:
    """Three figures that matter, no more."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def with_spread(figure: Figure | None, scale: float) -> str:
    if figure is None:
        return "-"
    middle = number(figure.median * scale)
    if figure.count == 1:
        return middle
    return f"{middle} ({number(figure.low * scale)}-{number(figure.high * scale)})"


def render(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shown(figures: Figures, work: str) -> tuple[str, float]:
    return SHOWN_UNIT[figures.units[work]]


def per_peer(
    figures: Figures, works: Sequence[str], field: str, unit: str = "", scale: float = 1.0, workers: int = 1
) -> str:
    """A row a work, a column a peer.  Without ``unit`` the figure is CPU time, in the unit of the work."""
    peers = [peer for peer in figures.peers(workers) if any(figures.get(work, peer, field, workers) for work in works)]
    if field == "cpu_us_per_unit":
        peers = [peer for peer in peers if peer != "none"]
    rows = []
    for work in works:
        if work not in figures.units:
            continue
        name, by = (unit, scale) if unit else shown(figures, work)
        cells = [with_spread(figures.get(work, peer, field, workers), by) for peer in peers]
        if any(cell != "-" for cell in cells):
            rows.append([f"({work}) {figures.titles[work]}, {name}", *cells])
    return render(["work", *peers], rows) if rows else ""


def ratios(figures: Figures, works: Sequence[str], field: str, workers: int = 1) -> str:
    """lbfast : each peer."""
    peers = [peer for peer in figures.peers(workers) if not peer.startswith("lbfast") and peer != "none"]
    rows = []
    for work in works:
        found = [figures.ratio(work, peer, field, workers) for peer in peers]
        if any(ratio is not None for ratio in found):
            cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in found]
            rows.append([f"({work}) {figures.titles[work]}", *cells])
    return render(["lbfast : peer", *peers], rows) if rows else ""


def verdict_row(verdict: Verdict) -> list[str]:
    found = "-" if verdict.found is None else f"{verdict.found:.2f}"
    aim = "" if verdict.aim is None else f"{verdict.aim:.2f}"
    return [verdict.what, found, f"<= {verdict.most:.2f}", aim, verdict.word, verdict.beside]


def musts(figures: Figures) -> str:
    rows = [verdict_row(verdict) for verdict in judge(figures)]
    return render(["promised, lbfast : best setting of HAProxy", "found", "must", "aim", "", "figures"], rows)


def setting(figures: Figures) -> str:
    """Where and what was measured."""
    first = figures.samples[0]
    samples = {(s["work"], s["peer"], s["workers"]): 0 for s in figures.samples}
    rounds = 1 + max(sample["round"] for sample in figures.samples)
    loads = [sample["load"] for sample in figures.samples]
    versions = sorted({sample["version"] for sample in figures.samples if sample["peer"] != "none"})
    lines = [
        f"lbfast at commit {first['commit']}; {len(figures.samples)} samples of {len(samples)} kinds, {rounds} rounds, "
        f"{first['at']} to {figures.samples[-1]['at']}{', QUICK: short samples' if first['quick'] else ''}.",
        f"{first['cpu']}, {first['cores']} cores, {first['memory_gb']} GB, Linux {first['kernel']}, "
        f"congestion control {first['congestion']}; load average {min(loads):.1f} to {max(loads):.1f}.",
        "Peers: " + "; ".join(versions) + ".",
    ]
    refused = figures.refused()
    lines.append(f"Samples not used because of errors or wrong bytes: {len(refused)}." + _refusals(refused))
    return "\n".join(lines) + "\n"


def _refusals(refused: Sequence[dict[str, object]]) -> str:
    kinds = sorted({f"{sample['work']} {sample['peer']} x{sample['workers']}" for sample in refused})
    return " " + ", ".join(kinds) + "." if kinds else ""


def everything(figures: Figures) -> str:
    """All tables, with a line before each that says what it shows."""
    works = figures.works()
    paced = [work for work in works if work.startswith("g") or work in ("b1", "i")]
    memory = "memory_bytes_per_connection"
    parts = [
        ("", setting(figures)),
        ("Promised and found", musts(figures)),
        (
            "CPU time of the whole proxy, one worker: median (low-high)",
            per_peer(figures, works, "cpu_us_per_unit"),
        ),
        ("Ratio of CPU time, one worker", ratios(figures, works, "cpu_us_per_unit")),
        ("CPU time of the whole machine, one worker", per_peer(figures, works, "busy_us_per_unit")),
        ("Throughput, one worker, units a second", per_peer(figures, works, "units_per_second", "units/s")),
        ("Latency p50, us", per_peer(figures, paced, "p50_us", "us")),
        ("Latency p99, us", per_peer(figures, paced, "p99_us", "us")),
        ("Latency p99.9, us", per_peer(figures, paced, "p999_us", "us")),
        ("Memory of all processes together, bytes a connection", per_peer(figures, ["f", "h"], memory, "bytes")),
        ("Memory before the first connection, MB", per_peer(figures, ["f"], "memory_empty_kb", "MB", 1 / 1024)),
        ("CPU while idle, % of a core", per_peer(figures, ["f"], "idle_cpu_percent", "%")),
        ("CPU time, two workers", per_peer(figures, works, "cpu_us_per_unit", workers=2)),
        ("Ratio of CPU time, two workers", ratios(figures, works, "cpu_us_per_unit", workers=2)),
        ("Throughput, two workers, units a second", per_peer(figures, works, "units_per_second", "units/s", workers=2)),
        ("Memory, two workers, bytes a connection", per_peer(figures, ["f"], memory, "bytes", workers=2)),
        ("Instructions, user and kernel", per_peer(figures, works, "instructions_per_unit", "instructions a unit")),
    ]
    return "\n".join(f"### {title}\n\n{table}" if title else table for title, table in parts if table)
