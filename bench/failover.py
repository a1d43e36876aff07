"""Measures what clients feel of each fault of a pair, on network namespaces, and prints one table.

    python bench/failover.py --turns 20 --clients 200 [--only power] [--random 50 --seed N]

Each turn begins with the primary active and both boxes ready.  `service`: seconds from the fault until
any client was served by a connection begun after it; `last client`: the same for the slowest one.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests"), str(TOP / "tests/netns")]

import trustme  # noqa: E402
from ha_lab import Clients, Lab, lab  # noqa: E402
from waiting import children_of  # noqa: E402

DEAF = "add table inet t\nadd chain inet t c { type filter hook input priority 0; policy accept; }\n"


@dataclass
class Row:
    """What the turns of one case have shown."""

    service: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    moved: int = 0
    cut: int = 0
    both_s: float = 0.0


class TwoActives(threading.Thread):
    """Looks at both boxes' addresses and adds up the time in which both had the service address and a process."""

    def __init__(self, found: Lab) -> None:
        super().__init__(daemon=True)
        self._lab = found
        self.ending = threading.Event()
        self.seconds = 0.0

    def run(self) -> None:
        before = time.monotonic()
        while not self.ending.is_set():
            both = all(self._lab.state(name) in ("active", "alone") for name in ("a", "b"))
            now = time.monotonic()
            self.seconds += (now - before) * both
            before = now
            self.ending.wait(0.01)


def power(found: Lab) -> None:
    found.kill_box("a")


def stop(found: Lab) -> None:
    found.boxes["a"].process.send_signal(signal.SIGTERM)


def takeover(found: Lab) -> None:
    found.verb("b", "takeover")


def hung(found: Lab) -> None:
    for name, pid in children_of(found.boxes["a"].pid).items():
        if "worker" in name or "w0" in name or "w1" in name:
            found.signal(pid, signal.SIGSTOP)


def link(found: Lab) -> None:
    found.cut("a", "lan")


def one_path(found: Lab) -> None:
    found.cut("a", "hb")


def both_paths(found: Lab) -> None:
    for name in ("a", "b"):
        found.nft(name, DEAF + "add rule inet t c udp dport 6694 drop\n")


def one_way(found: Lab) -> None:
    found.nft("b", DEAF + "add rule inet t c udp dport 6694 drop\n")


def lossy(found: Lab) -> None:
    """A third of all heartbeats lost, both ways, on both paths."""
    for name in ("a", "b"):
        found.nft(name, DEAF + "add rule inet t c udp dport 6694 numgen random mod 100 < 33 drop\n")


CASES: dict[str, tuple[Callable[[Lab], None], bool]] = {
    "power": (power, True),
    "stop": (stop, True),
    "takeover": (takeover, True),
    "hung": (hung, True),
    "link": (link, True),
    "one_path": (one_path, False),
    "both_paths": (both_paths, False),
    "one_way": (one_way, False),
    "lossy": (lossy, False),
}


def mend(found: Lab) -> None:
    """Back to the beginning, whatever was done."""
    for name in ("a", "b"):
        try:
            found.nft(name, "delete table inet t\n")
        except Exception:
            pass
        for pid in children_of(found.boxes[name].pid).values() if found.boxes[name].process.poll() is None else ():
            found.signal(pid, signal.SIGCONT)
        for cable in ("lan", "hb"):
            found.mend(name, cable)
    for name in ("a", "b"):
        if found.boxes[name].process.poll() is not None:
            found.revive(name)
            found.start(name)
    found.wait_ready(40)
    if found.state("a") != "active":
        found.verb("a", "takeover")
        found.wait_ready(40)


def turn(found: Lab, case: str, count: int, row: Row) -> None:
    fault, moves = CASES[case]
    clients: Clients = found.clients(count, every=0.2, held=5)
    watch = TwoActives(found)
    watch.start()
    at = time.monotonic()
    fault(found)
    if moves:
        found.wait_holder("b")
    else:
        time.sleep(2)  # long enough for six dead times: this measures, it waits for nothing
    report = clients.report_after(at, count)
    if case == "stop":
        found.boxes["a"].wait()
    watch.ending.set()
    watch.join()
    row.service.append(report.outage(at))
    row.last.append(max(report.outages(at)))
    row.moved += report.moved()
    row.cut += report.cut()
    row.both_s += watch.seconds
    if not moves and found.holds("b"):
        raise SystemExit(f"{case}: the addresses moved without need")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--only", choices=[*CASES], action="append")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N faults in random order, instead")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    order = [case for case in options.only or CASES for _ in range(options.turns)]
    if options.random:
        print(f"seed {options.seed}")
        order = random.Random(options.seed).choices([*CASES], k=options.random)
    rows: dict[str, Row] = {}
    with lab("fo", clients=options.clients) as found:
        found.write_pair()
        found.serve(trustme.CA())
        found.start("a", "b")
        for case in order:
            mend(found)
            turn(found, case, options.clients, rows.setdefault(case, Row()))
            print(f"{case} {rows[case].service[-1]:.3f} s", file=sys.stderr, flush=True)
        print("| case | turns | service: median, worst | last client: median, worst | moved | cut | two actives |")
        print("|---|---|---|---|---|---|---|")
        for case, row in rows.items():
            service = f"{statistics.median(row.service):.3f} s, {max(row.service):.3f} s"
            last = f"{statistics.median(row.last):.3f} s, {max(row.last):.3f} s"
            print(
                f"| {case} | {len(row.service)} | {service} | {last} | {row.moved} | {row.cut} | {row.both_s:.2f} s |"
            )
        mend(found)
        for box in found.boxes.values():
            box.stop()


if __name__ == "__main__":
    main()
