"""A day of edits, upgrades and deaths under a load that checks every byte: what clients noticed, lbfast beside HAProxy.

.venv/bin/python bench/nothing_lost.py [--only lbfast|haproxy] [--short]      four minutes, as root
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "proc")]

from bench.days import HaproxyDay, LbfastDay  # noqa: E402
from bench.procs import Ports, pss_kb  # noqa: E402
from bench.under_load import Clients, Seen, Servers, servers  # noqa: E402

PAUSE = 0.25  # between two steps, so that each meets new connections
Day = LbfastDay | HaproxyDay


@dataclass
class Row:
    what: str
    count: int
    seconds: float
    seen: Seen
    old: int  # most processes of before that were still there
    steps: list[float] = field(default_factory=list)  # seconds of each


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("lbfast", "haproxy"))
    parser.add_argument("--short", action="store_true", help="a tenth of the steps")
    asked = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="lbfast-day-") as place:
        folder = Path(place)
        folder.chmod(0o711)
        with servers(folder) as there:
            if asked.only != "haproxy":
                failed |= not _run_lbfast(folder / "a", there, 10 if asked.short else 1)
            if asked.only != "lbfast":
                _run_haproxy(folder / "b", there, 10 if asked.short else 1)
    return int(failed)


def _run_lbfast(folder: Path, there: Servers, part: int) -> bool:
    folder.mkdir()
    folder.chmod(0o711)
    ports = Ports()
    day = LbfastDay(folder, ports.take(), ports.take(), there.ports)
    day.start()
    try:
        with Clients(day.port, there.ca) as clients:
            rows = [
                *_common(day, clients, part),
                _steps(day, clients, "SIGKILL of control", 10 // part, lambda: day.kill_other("control")),
                _steps(day, clients, "SIGKILL of health", 10 // part, lambda: day.kill_other("health")),
            ]
            clean = all(row.seen.is_clean for row in rows)
            return _deaths(day, clients, max(1, 5 // part)) and clean
    finally:
        day.stop()


def _run_haproxy(folder: Path, there: Servers, part: int) -> None:
    folder.mkdir()
    ports = Ports()
    day = HaproxyDay(folder, ports.take(), ports.take(), there.ports, ports.take())
    day.start()
    try:
        with Clients(day.port, there.ca) as clients:
            _common(day, clients, part)
            _deaths(day, clients, 1)
    finally:
        day.stop()


def _common(day: Day, clients: Clients, part: int) -> list[Row]:
    time.sleep(3)
    before = clients.look()
    print(f"{day.label}: {before.new / 3:.0f} new connections/s, {before.exchanges / 3:.0f} exchanges/s at the start")
    assert before.is_clean, f"the load fails before anything was done: {before}"
    return [
        _steps(day, clients, "edits", 100 // part, day.edit),
        _steps(day, clients, "upgrades", 20 // part, day.upgrade),
        _steps(day, clients, "changes of the worker count", max(1, 5 // part), day.resize),
    ]


def _steps(day: Day, clients: Clients, what: str, count: int, step: Callable[[], object]) -> Row:
    begun, old, times = time.monotonic(), 0, []
    for _ in range(count):
        started = time.monotonic()
        step()
        times.append(time.monotonic() - started)
        time.sleep(PAUSE)
        old = max(old, day.old_processes())
    time.sleep(1)
    row = Row(what, count, time.monotonic() - begun, clients.look(), old, times)
    _show(day, row)
    return row


def _show(day: Day, row: Row) -> None:
    seen = row.seen
    print(
        f"{day.label:8} {row.count:4} {row.what:28} {row.seconds:5.0f} s; {seen.new} new, {seen.exchanges} exchanges; "
        f"refused {seen.refused}, failed {len(seen.failed)}, cut {len(seen.cut)}, damaged {seen.damaged}, "
        f"split {len(seen.split)}; longest exchange {seen.longest_ms:.0f} ms, new {seen.longest_new_ms:.0f} ms; "
        f"a step took {sorted(row.steps)[len(row.steps) // 2]:.2f} s, at most {max(row.steps):.2f}; "
        f"old processes at most {row.old}; {pss_kb(day.processes()) // 1024} MiB",
        flush=True,
    )
    for failure in [*seen.failed, *seen.cut][:5] if not seen.is_clean else ():
        print(f"         {failure}")


def _deaths(day: Day, clients: Clients, count: int) -> bool:
    """A worker killed: was anybody harmed who was not on it?"""
    forked, looped, foreign, cut, refused = [], [], 0, 0, 0
    for _ in range(count):
        fork, loop, its = day.kill_worker()
        forked.append(fork)
        looped.append(loop)
        time.sleep(2)
        seen = clients.look()
        harmed = {int(it[3]) for it in [*seen.failed, *seen.cut]}
        foreign += len(harmed - its)
        cut += len(harmed)
        refused += seen.refused
    what = (
        f"{day.label:8} {count:4} SIGKILL of a worker: {cut} cut, {foreign} of them were not on it, {refused} new ones"
    )
    print(
        f"{what} refused; split {len(seen.split)}; forked again within {max(forked) * 1000:.0f} ms, "
        f"serves within {max(looped) * 1000:.0f} ms",
        flush=True,
    )
    return not (foreign or refused or seen.split or seen.damaged)


if __name__ == "__main__":
    sys.exit(main())
