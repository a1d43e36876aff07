"""Measures what clients feel of each fault of a pair, on network namespaces.

    python bench/failover.py --turns 20 --clients 200 [--only power ...] [--append FILE]
    python bench/failover.py --random 50 --seed N
    python bench/failover.py --rival 0.1 --turns 20          keepalived (advert of 0.1 s) with HAProxy and its peers
    python bench/failover.py --table FILE                    the table of lines that were appended

Every turn begins with both boxes ready and hurts the active one.  `any`: seconds from the fault until any
client was served by a connection begun after it.  `slowest`: the longest that one client waited for service.
`moved`: clients that changed their server.  `cut`: connections cut of those held open.  `two`: seconds in which
both kernels had the address and a carrier.  The case `moved` has a pair of its own, whose established
connections change boxes, and a table of its own (bench/moved.py).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests"), str(TOP / "tests/proc"), str(TOP / "tests/netns")]

import trustme  # noqa: E402
from failover_cases import CASES, Scene, TwoActives, look_at, mend, random_turns  # noqa: E402
from failover_rival import RIVAL_CASES, Rival  # noqa: E402
from ha_lab import Lab, lab  # noqa: E402
from moved import measure as measure_moved  # noqa: E402
from moved import print_table as print_moved  # noqa: E402

HELD = 5
EVERY = 1.0  # seconds between two connections of a client: 200 of them are somebody every 5 ms
CALM = 2.0  # seconds to watch when nothing should move: six times the dead time
MOVED = "moved"  # the case that has a pair of its own
SETTLED = 20.0  # seconds in which one box must be active, whatever happened


@dataclass
class Turn:
    """What one turn has shown; a line of JSON."""

    who: str
    case: str
    weather: str
    clients: int
    any_s: float
    slowest_s: float
    moved: int
    cut: int
    held: int
    two_s: float
    trouble: str = ""


def play(found: Lab, who: str, weather: str, case: str, clients: int) -> Turn:
    """One fault, with clients."""
    scene = look_at(found)
    todo = CASES[case]
    if todo.prepare is not None:
        todo.prepare(scene)
    crowd = found.clients(clients, every=EVERY, held=HELD)
    watch = TwoActives(found)
    watch.start()
    time.sleep(EVERY)  # the first connections came all at once; now they are spread
    if weather:
        CASES[weather].fault(scene)
        time.sleep(random.uniform(0.0, 0.5))
    at = time.monotonic()
    todo.fault(scene)
    trouble = await_outcome(todo.moves, scene)
    report = crowd.report_after(time.monotonic(), clients)
    watch.ending.set()
    watch.join()
    if case == "stop":
        found.wait_stopped(scene.active)
    waits = report.waits(at)
    if report.moved():
        steps = ", ".join(f"{before} to {after} at {when - at:+.3f} s" for when, before, after in report.moves()[:12])
        trouble += f"; {report.moved()} clients changed their server: {steps}"
    if max(waits) == float("inf"):
        trouble += f"; {waits.count(float('inf'))} clients were never served again"
    return Turn(
        who,
        case,
        weather,
        clients,
        round(report.outage(at), 4),
        round(max(waits), 4),
        report.moved(),
        report.cut(),
        HELD,
        round(watch.seconds, 3),
        trouble.removeprefix("; "),
    )


def await_outcome(moves: bool | None, scene: Scene) -> str:
    """Wait for what should follow; what did not, in words."""
    began = time.monotonic()
    if moves:
        while not scene.lab.holds(scene.passive):
            if time.monotonic() - began > SETTLED:
                return f"the other box was not active within {SETTLED:g} s"
            time.sleep(0.02)
        return ""
    time.sleep(CALM)  # this measures, it waits for nothing
    if moves is False and not scene.lab.holds(scene.active):
        return "the addresses moved without need"
    return ""


def print_table(turns: Sequence[Turn]) -> None:
    """Median and worst of each case."""
    print("| who | fault | turns | any: median, worst | slowest: median, worst | moved | cut | two |")
    print("|---|---|---|---|---|---|---|---|")
    for who, case in dict.fromkeys((it.who, it.case) for it in turns):
        rows = [it for it in turns if (it.who, it.case) == (who, case)]
        found = [[it.any_s for it in rows], [it.slowest_s for it in rows]]
        anybody, slowest = (f"{statistics.median(them):.3f} s, {max(them):.3f} s" for them in found)
        cut, held = sum(it.cut for it in rows), sum(it.held for it in rows)
        two = max(it.two_s for it in rows)
        moved = sum(it.moved for it in rows)
        print(f"| {who} | {case} | {len(rows)} | {anybody} | {slowest} | {moved} | {cut} of {held} | {two:.3f} s |")


@contextmanager
def pair_of(options: argparse.Namespace) -> Iterator[Lab]:
    """The two appliances under test, started."""
    if options.rival is not None:
        with lab("hapk", clients=options.clients, kind=Rival) as found:
            found.advert_s = options.rival
            found.serve(trustme.CA())
            found.start("a", "b")
            yield found
        return
    with lab("hapf", clients=options.clients) as found:
        found.write_pair()
        found.serve(trustme.CA())
        found.start_pair()
        yield found
        mend(found)
        for box in found.boxes.values():
            box.stop()


def plan_turns(options: argparse.Namespace) -> list[tuple[str, str]]:
    if options.random:
        print(f"seed {options.seed}", flush=True)
        return random_turns(options.seed, options.random)[options.skip :]
    cases = options.only or (RIVAL_CASES if options.rival is not None else CASES)
    return [("", case) for case in cases if case != MOVED for _ in range(options.turns)]


def measure(options: argparse.Namespace) -> list[Turn]:
    """All turns; each is appended at once, so that a run may be cut off."""
    who = "lbfast" if options.rival is None else f"keepalived {options.rival:g} s + HAProxy"
    began, turns = time.monotonic(), list[Turn]()
    if options.only == [MOVED]:
        return turns
    with pair_of(options) as found:
        for weather, case in plan_turns(options):
            if options.seconds and time.monotonic() - began > options.seconds:
                print(f"{options.seconds} s are over after {len(turns)} turns", file=sys.stderr)
                break
            mend(found)
            turn = play(found, who, weather, case, options.clients)
            turns.append(turn)
            if options.append:
                with options.append.open("a") as stream:
                    print(json.dumps(asdict(turn)), file=stream)
            print(f"{len(turns)} {turn}", file=sys.stderr, flush=True)
    return turns


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--only", choices=[*CASES, MOVED], action="append")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N faults in random order, instead")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave the first N random faults out")
    parser.add_argument("--seconds", type=int, default=0, help="begin no turn after so long")
    parser.add_argument("--append", type=Path, metavar="FILE", help="append a line of JSON for each turn")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing, print the table of a file")
    parser.add_argument("--rival", type=float, metavar="SECONDS", help="keepalived with this advert, and HAProxy")
    options = parser.parse_args()
    if options.table:
        print_table([Turn(**json.loads(line)) for line in options.table.read_text().splitlines()])
        return 0
    turns = measure(options)
    print_table(turns)
    trouble = "" if options.random or options.rival is not None else play_moved(options)
    troubled = [turn for turn in turns if turn.trouble]
    for turn in troubled:
        print(f"{turn.weather or 'fair'}, {turn.case}: {turn.trouble}")
    return 1 if troubled or trouble else 0


def play_moved(options: argparse.Namespace) -> str:
    """The planned takeover that keeps connections: its pair has services whose connections can move."""
    if options.only and MOVED not in options.only:
        return ""
    moved, still = measure_moved(options.turns, (options.clients, options.clients // 4, options.clients // 10))
    print_moved(moved, still)
    return moved.trouble


if __name__ == "__main__":
    sys.exit(main())
