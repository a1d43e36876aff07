"""Measures a planned takeover with source_address = "vip": connections cut, and the longest pause that a client sees.

python bench/moved.py --turns 20 --talking 1000 --idle 0 --half 0
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests"), str(TOP / "tests/netns")]

import trustme  # noqa: E402
from ha_lab import PORT, SERVERS, VIP, Lab, lab  # noqa: E402


def turn(found: Lab, talking: int, idle: int, half: int) -> tuple[float, dict[str, Any]]:
    """One takeover under these connections: how long the order took, and what the clients have noted."""
    words = [str(found.directory / "ca.pem"), VIP, str(PORT), *map(str, (talking, idle, half))]
    process = found.run("c", "conn_clients.py", *words)
    giver, taker = ("a", "b") if found.state("a") == "active" else ("b", "a")
    begun = time.monotonic()
    found.verb(taker, "takeover")
    took = time.monotonic() - begun
    found.wait_states(**{giver: "passive", taker: "active"})
    found.wait_ready()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    notes = json.loads(process.stdout.readline())
    process.wait(60)
    return took, notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    for name, count in (("talking", 200), ("idle", 50), ("half", 20)):
        parser.add_argument(f"--{name}", type=int, default=count)
    options = parser.parse_args()
    orders, pauses, cut, damaged, total = [], [], 0, 0, 0
    with lab("hcnb", service={"source_address": "vip", "ports": f"{PORT},{PORT + 1}"}) as found:
        found.write_pair()
        found.serve(trustme.CA())
        found.run("s", "conn_servers.py", str(PORT + 1), *SERVERS)
        found.start("a", "b", config=found.config().replace(f"port = {PORT}\n", ""))
        for _ in range(options.turns):
            found.wait_ready()
            took, notes = turn(found, options.talking, options.idle, options.half)
            orders.append(took)
            pauses.append(notes["pauses"])
            cut += len(notes["cut"])
            damaged += len(notes["damaged"])
            total += options.talking + options.idle + options.half
            print(f"{took:.3f} s, longest pause {notes['pauses'][-1]:.3f} s", file=sys.stderr, flush=True)
        for box in found.boxes.values():
            box.stop()
    every = sorted(pause for one in pauses for pause in one)
    print("| turns | connections | cut | damaged | order: median, worst | longest pause: median, worst |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {options.turns} | {total} | {cut} | {damaged} | {statistics.median(orders):.3f} s, {max(orders):.3f} s "
        f"| {statistics.median(every):.3f} s, {every[-1]:.3f} s |"
    )


if __name__ == "__main__":
    main()
