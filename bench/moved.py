"""Measures a planned takeover with source_address = "vip": connections cut, and the longest pause that a client sees.

python bench/moved.py --turns 20 --talking 1000 --idle 0 --half 0
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests"), str(TOP / "tests/netns")]

import trustme  # noqa: E402
from ha_lab import PORT, SERVERS, VIP, Lab, report_of, running_pair  # noqa: E402

STILL_S = 2.0  # as long as a turn with a takeover, about


@dataclass
class Moved:
    """What all turns have shown."""

    connections: int = 0
    cut: int = 0
    damaged: int = 0
    orders: list[float] = field(default_factory=list)
    pauses: list[list[float]] = field(default_factory=list)  # the longest of each talking connection, in each turn
    said: list[str] = field(default_factory=list)  # by the boxes: where the time went

    @property
    def trouble(self) -> str:
        return f"{self.cut} connections cut, {self.damaged} damaged" if self.cut or self.damaged else ""


def turn(found: Lab, counts: tuple[int, int, int], result: Moved, is_still: bool = False) -> None:
    """One takeover under these connections, or none, to see how long the clients themselves pause."""
    process = found.run("c", "conn_clients.py", str(found.directory / "ca.pem"), VIP, str(PORT), *map(str, counts))
    giver, taker = ("a", "b") if found.state("a") == "active" else ("b", "a")
    begun = time.monotonic()
    if is_still:
        time.sleep(STILL_S)
    else:
        found.verb(taker, "takeover")
        result.orders.append(time.monotonic() - begun)
        found.wait_states(**{giver: "passive", taker: "active"})
        found.wait_ready()
    notes = report_of(process)
    result.connections += sum(counts)
    result.cut += len(notes["cut"])
    result.damaged += len(notes["damaged"])
    result.pauses.append(notes["pauses"])
    print(f"longest pause {notes['pauses'][-1]:.3f} s, {len(notes['cut'])} cut", file=sys.stderr, flush=True)
    for name in () if is_still else (giver, taker):
        lines = found.boxes[name].cli("events", "--limit", "60")[1].splitlines()
        result.said += [line for line in lines if "shipped to the peer" in line or "taken over, set going" in line][-1:]


def measure(turns: int, counts: tuple[int, int, int]) -> tuple[Moved, Moved]:
    """With takeovers, and one turn without."""
    moved, still = Moved(), Moved()
    service = {"source_address": "vip", "ports": f"{PORT},{PORT + 1}"}
    with running_pair("hcnb", trustme.CA(), any_port, service=service) as found:
        found.run("s", "conn_servers.py", str(PORT + 1), *SERVERS)
        found.wait_ready()
        turn(found, counts, still, is_still=True)
        for _ in range(turns):
            found.wait_ready()
            turn(found, counts, moved)
    return moved, still


def any_port(found: Lab) -> str:
    """The real servers listen where the client came to."""
    return found.config().replace(f"port = {PORT}\n", "")


def print_table(moved: Moved, still: Moved) -> None:
    every = sorted(pause for one in moved.pauses for pause in one)
    heads = ("turns", "connections", "cut", "damaged", "order: median, worst", "longest pause: median, worst")
    print("|", " | ".join((*heads, "without a takeover")), "|")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {len(moved.orders)} | {moved.connections} | {moved.cut} | {moved.damaged} "
        f"| {statistics.median(moved.orders):.3f} s, {max(moved.orders):.3f} s "
        f"| {statistics.median(every):.3f} s, {every[-1]:.3f} s "
        f"| {statistics.median(still.pauses[0]):.3f} s, {still.pauses[0][-1]:.3f} s |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    for name, count in (("talking", 200), ("idle", 50), ("half", 20)):
        parser.add_argument(f"--{name}", type=int, default=count)
    options = parser.parse_args()
    moved, still = measure(options.turns, (options.talking, options.idle, options.half))
    print_table(moved, still)
    print("\n".join(moved.said))
    return 1 if moved.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
