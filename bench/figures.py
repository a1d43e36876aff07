"""From samples to figures: medians, spread, ratios between peers, and which of the promised ones are met.  Pure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Sample = dict[str, Any]

ORDER = ("none", "haproxy", "haproxy, splice", "nginx", "envoy", "lbfast", "lbfast, logging")
HAPROXY = ("haproxy", "haproxy, splice")
# CPU seconds a unit, in the unit that people read.
SHOWN_UNIT = {"GB": ("ms/GB", 1e-3), "request": ("us/request", 1.0), "connection": ("us/connection", 1.0)}
SHOWN_UNIT["second"] = ("ms/s", 1e-3)


@dataclass(frozen=True)
class Figure:
    """The middle of some samples and how far they lie apart."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Must:
    """One promised ratio, lbfast to the better setting of HAProxy, one worker each."""

    work: str
    field: str
    what: str
    most: float
    aim: float
    is_added: bool = False  # what "no proxy" has is taken off both first


MUSTS = (
    Must("a1", "cpu_us_per_unit", "bulk 1 MB, CPU per GB", 0.95, 0.75),
    Must("a2", "cpu_us_per_unit", "bulk 100 MB, CPU per GB", 0.95, 0.75),
    Must("b64", "cpu_us_per_unit", "small keep-alive, 64 connections, CPU per request", 0.88, 0.75),
    Must("c", "cpu_us_per_unit", "connection per request, CPU per connection", 0.88, 0.72),
    Must("d1", "cpu_us_per_unit", "TLS pass-through, handshake per request, CPU per connection", 0.90, 0.78),
    Must("f", "memory_bytes_per_connection", "memory per idle connection", 0.15, 0.08),
    Must("g50", "p99_us", "added latency p99 at half load", 1.0, 0.8, is_added=True),
)
TWO_WORKERS_MOST = 1.10


class Figures:
    """All usable samples of one run, asked by work, peer, workers and field."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)
        self.titles = {sample["work"]: str(sample["title"]) for sample in self.samples}
        self.units = {sample["work"]: str(sample["unit"]) for sample in self.samples if sample["used"]}

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Figures:
        return cls(json.loads(line) for line in lines if line.strip())

    def get(self, work: str, peer: str, field: str, workers: int = 1) -> Figure | None:
        values = [
            float(sample[field])
            for sample in self.samples
            if (sample["work"], sample["peer"], sample["workers"]) == (work, peer, workers)
            and sample["used"]
            and sample.get(field) is not None
        ]
        if not values:
            return None
        return Figure(statistics.median(values), min(values), max(values), len(values))

    def peers(self, workers: int = 1) -> list[str]:
        present = {sample["peer"] for sample in self.samples if sample["workers"] == workers}
        return [peer for peer in ORDER if peer in present]

    def works(self) -> list[str]:
        return sorted(self.titles)

    def refused(self) -> list[Sample]:
        return [sample for sample in self.samples if not sample["used"]]

    def best_haproxy(self, work: str, field: str, workers: int = 1) -> tuple[str, Figure] | None:
        """The setting of HAProxy that does best in this work, by the same figure."""
        found = [(peer, figure) for peer in HAPROXY if (figure := self.get(work, peer, field, workers))]
        return min(found, key=lambda pair: pair[1].median, default=None)

    def ratio(self, work: str, peer: str, field: str, workers: int = 1) -> float | None:
        """lbfast : peer, medians."""
        ours, theirs = self.get(work, "lbfast", field, workers), self.get(work, peer, field, workers)
        if ours is None or theirs is None or theirs.median <= 0:
            return None
        return ours.median / theirs.median


@dataclass(frozen=True)
class Verdict:
    """A promise and what was found; ``found`` is None when it could not be measured."""

    what: str
    most: float
    aim: float | None
    found: float | None
    beside: str

    @property
    def word(self) -> str:
        if self.found is None:
            return "not measured"
        if self.aim is not None and self.found <= self.aim:
            return "met, aim too"
        return "met" if self.found <= self.most else "NOT met"


def judge(figures: Figures) -> list[Verdict]:
    return [_judge_ratio(figures, must) for must in MUSTS] + _judge_two_workers(figures)


def _judge_ratio(figures: Figures, must: Must) -> Verdict:
    ours, theirs = figures.get(must.work, "lbfast", must.field), figures.best_haproxy(must.work, must.field)
    if ours is None or theirs is None:
        return Verdict(must.what, must.most, must.aim, None, "no usable sample")
    base = figures.get(must.work, "none", must.field) if must.is_added else None
    taken = base.median if base else 0.0
    over, under = ours.median - taken, theirs[1].median - taken
    beside = f"{ours.median:,.1f} beside {theirs[1].median:,.1f} ({theirs[0]})"
    if base:
        beside += f", {taken:,.1f} without a proxy"
    if under <= 0:
        return Verdict(must.what, must.most, must.aim, None, beside + ": the noise is larger than what HAProxy adds")
    return Verdict(must.what, must.most, must.aim, max(over, 0.0) / under, beside)


def _judge_two_workers(figures: Figures) -> list[Verdict]:
    verdicts = []
    for work in figures.works():
        one, two = (figures.get(work, "lbfast", "cpu_us_per_unit", workers) for workers in (1, 2))
        if one is None or two is None or work == "f" or one.median <= 0:
            continue
        rival = [figures.get(work, HAPROXY[0], "cpu_us_per_unit", workers) for workers in (1, 2)]
        said = f"; haproxy: {rival[1].median / rival[0].median:.2f}" if rival[0] and rival[1] else ""
        what = f"two workers : one, CPU per unit, {figures.titles[work]}"
        verdicts.append(Verdict(what, TWO_WORKERS_MOST, None, two.median / one.median, "lbfast alone" + said))
    return verdicts
