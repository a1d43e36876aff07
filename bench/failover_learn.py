"""Measures what a passive box does not know when the active one dies: clients that were answered and have no entry.

    python bench/failover_learn.py --turns 10 --pace 300 [--pull]

New clients, each with an address of its own, connect at a steady pace; every process of the active box is killed by
SIGKILL in the middle.  With `--pull` its plugs go at the same moment, so that nothing in its kernel gets out any more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests"), str(TOP / "tests/proc"), str(TOP / "tests/netns")]

import trustme  # noqa: E402
from failover_cases import look_at, mend  # noqa: E402
from ha_lab import PORT, VIP, Lab, lab  # noqa: E402

CLIENTS = 1000
LEARNERS = str(TOP / "bench/failover_learners.py")


def turn(found: Lab, pace: float, *, pull: bool) -> tuple[int, list[float]]:
    """Clients that were answered before the end, and how long before it those without an entry were."""
    scene = look_at(found)
    learners = found.run("c", LEARNERS, str(found.directory / "ca.pem"), VIP, str(PORT), str(CLIENTS), str(pace))
    time.sleep(CLIENTS / pace / 2)
    at = time.monotonic()
    (found.kill_box if pull else found.kill_processes)(scene.active)
    found.wait_holder(scene.passive)
    assert learners.stdin is not None
    assert learners.stdout is not None
    code, out, err = found.boxes[scene.passive].cli("persistence", "show", "Symphony", "--json")
    if code != 0:
        raise SystemExit(err)
    known = set(re.findall(r"10\.77\.\d+\.\d+", out))
    learners.stdin.write("\n")
    learners.stdin.flush()
    answered = json.loads(learners.stdout.readline())
    learners.wait(20)
    before = {client: done for client, (done, _) in answered.items() if done <= at}
    found.boxes[scene.passive].cli("persistence", "clear", "Symphony")
    return len(before), sorted(at - done for client, done in before.items() if client not in known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--pace", type=float, default=200, help="new clients a second")
    parser.add_argument("--pull", action="store_true", help="the plugs go, too")
    options = parser.parse_args()
    with lab("hapl") as found:
        found.add_addresses("c", [f"10.77.{1 + it // 250}.{1 + it % 250}/16" for it in range(1, CLIENTS)])
        found.write_pair()
        found.serve(trustme.CA())
        found.start_pair()
        total, missing = 0, []
        for _ in range(options.turns):
            mend(found)
            answered, without = turn(found, options.pace, pull=options.pull)
            total += answered
            missing += without
            print(f"{answered} answered, {len(without)} without an entry", file=sys.stderr, flush=True)
        ages = [round(age * 1000, 1) for age in sorted(missing)]
        print(json.dumps({"answered": total, "without_entry": len(missing), "answered_ms_before": ages}))
        mend(found)
        for box in found.boxes.values():
            box.stop()


if __name__ == "__main__":
    main()
