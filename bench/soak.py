"""A day compressed: edits, upgrades, deaths of every kind under load, by turns, and what lbfast occupies meanwhile.

.venv/bin/python bench/soak.py [--seconds 1200] [--long 100] [--rate 100]      as root; `make soak SECONDS=...`

What a day has is spread over the time: 100 edits, 20 upgrades, 20 deaths of control and health, 5 of a worker, 6
changes of the worker count.  Memory, descriptors, pipes and tables are sampled at rest and must be flat: the last
quarter is compared with the second one, because the first fills what has a size of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "proc")]

from footprint import footprint  # noqa: E402

from bench.days import LbfastDay  # noqa: E402
from bench.procs import Ports  # noqa: E402
from bench.under_load import Clients, Seen, added, servers  # noqa: E402

SAMPLES = 24
MIB = 1 << 20
COLUMNS = ("private MiB", "shared MiB", "fds", "pipes", "seats", "entries", "connections", "processes")
# What a column may grow by from the second quarter to the last: a part, and some.  Pipes are kept for the next need and
# connections are the load's own; probes open a descriptor now and then; a seat more is one that was not vacant in time.
MAY_GROW = {"private MiB": (0.03, 3), "shared MiB": (0.05, 2), "fds": (0.02, 8), "seats": (0.0, 1), "entries": (0.0, 0),
            }  # fmt: skip


@dataclass(frozen=True)
class Sample:
    at: float
    figures: tuple[float, ...]
    seen: Seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--long", type=int, default=100)
    parser.add_argument("--rate", type=float, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lbfast-soak-") as place:
        folder = Path(place)
        folder.chmod(0o711)
        with servers(folder) as there:
            ports = Ports()
            (folder / "a").mkdir(mode=0o711)
            day = LbfastDay(folder / "a", ports.take(), ports.take(), there.ports)
            day.start()
            try:
                with Clients(day.port, there.ca, long=asked.long, rate=asked.rate) as clients:
                    return _live(day, clients, asked.seconds)
            finally:
                day.stop()


def _live(day: LbfastDay, clients: Clients, seconds: float) -> int:
    begun, done, samples, cut_by_death = time.monotonic(), [0] * len(_STEPS), [], 0
    print("     s  " + "  ".join(COLUMNS) + "  new  exchanges  lost")
    while (now := time.monotonic() - begun) < seconds:
        for at, (_, count, step) in enumerate(_STEPS):
            if done[at] < count * now / seconds:
                done[at] += 1
                if step is _kill_worker:
                    cut_by_death += _lost_others(day, clients)
                else:
                    step(day)
        if len(samples) < SAMPLES * now / seconds:
            samples.append(_sample(day, clients, time.monotonic() - begun))
        time.sleep(0.2)
    whole = added(clients.total)
    print(f"in {seconds:.0f} s: " + ", ".join(f"{n} {name}" for n, (name, *_) in zip(done, _STEPS, strict=True)))
    harmed = [sample for sample in samples if not sample.seen.is_clean]
    for sample in harmed:
        print(f"LOST by {sample.at:.0f} s: {[*sample.seen.failed, *sample.seen.cut][:5]}, {sample.seen.split}")
    print(
        f"{whole.new} new connections, {whole.exchanges} exchanges: {whole.refused} refused, {whole.damaged} damaged, "
        f"{len(whole.split)} split; {len(whole.failed) + len(whole.cut)} cut, {cut_by_death} of them not on one"
    )
    grown = _grown(samples)
    print("\n".join(f"NOT FLAT: {line}" for line in grown) or "flat: " + ", ".join(MAY_GROW))
    return int(bool(grown or harmed or cut_by_death or whole.refused or whole.damaged or whole.split))


def _kill_worker(day: LbfastDay) -> None:
    day.kill_worker()


def _lost_others(day: LbfastDay, clients: Clients) -> int:
    """A worker is killed: how many were cut that were not on it."""
    before = clients.look()
    *_, its = day.kill_worker()
    time.sleep(1)
    seen = clients.look()
    harmed = {int(it[3]) for it in [*seen.failed, *seen.cut]}
    return len(harmed - its) + len(before.failed) + len(before.cut)


def _sample(day: LbfastDay, clients: Clients, at: float) -> Sample:
    seen = clients.look()
    now = footprint(day.lb)
    seats = len(list(day.lb.runtime_dir.glob("worker*.sock")))
    figures = (sum(now.memory.values()) / MIB, now.shared / MIB, sum(now.descriptors.values()), now.pipes, seats,
               now.entries, now.connections, len(now.memory))  # fmt: skip
    lost = seen.refused + len(seen.failed) + len(seen.cut) + seen.damaged
    cells = "  ".join(f"{it:{len(name)}.0f}" for it, name in zip(figures, COLUMNS, strict=True))
    print(f"{at:6.0f}  {cells}  {seen.new}  {seen.exchanges}  {lost}", flush=True)
    return Sample(at, figures, seen)


def _grown(samples: Sequence[Sample]) -> list[str]:
    """Columns whose last quarter lies above the second one by more than they may, with as many processes as then."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    grown = []
    for count in {_processes(it) for it in early} & {_processes(it) for it in late}:
        for at, name in enumerate(COLUMNS):
            if name not in MAY_GROW:
                continue
            before, after = (median(it.figures[at] for it in few if _processes(it) == count) for few in (early, late))
            part, some = MAY_GROW[name]
            if after > before * (1 + part) + some:
                grown.append(f"{name} was {before:.0f} and is {after:.0f} with {count} processes")
    return grown


def _processes(sample: Sample) -> int:
    return int(sample.figures[-1])


_STEPS: Sequence[tuple[str, int, Callable[[LbfastDay], None]]] = (
    ("edits", 100, lambda day: day.edit()),
    ("upgrades", 20, lambda day: day.upgrade()),
    ("SIGKILLs of control", 10, lambda day: day.kill_other("control")),
    ("SIGKILLs of health", 10, lambda day: day.kill_other("health")),
    ("SIGKILLs of a worker", 5, _kill_worker),
    ("changes of the worker count", 6, lambda day: day.resize()),
)

if __name__ == "__main__":
    sys.exit(main())
