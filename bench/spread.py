"""How evenly long-lived connections lie on the workers.

    python -m bench.spread [--connections 1000] [--workers 2] [--runs 5]

Devices connect as fast as they can, say something once and stay.  Prints, for each run on a fresh lbfast, how many
connections each worker has, and the fullest worker over the mean.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from bench.origins import Servers, servers
from bench.peers import LOG_NONE, Plan, running, start_lbfast
from bench.procs import Ports, wait_until
from bench.verify import answers
from bench.works import client, finish, wait_ready
from lbfast.control.client import Client


@contextlib.contextmanager
def held(port: int, count: int) -> Iterator[None]:
    """So many connections that stay open; each is asked again at the end."""
    process: subprocess.Popen[str] = client(["idle", str(port), str(count)])
    wait_ready(process)
    try:
        yield
    finally:
        result = finish(process)
        if result["errors"]:
            raise RuntimeError(f"{result['errors']} of {count} connections failed: {result.get('complaint', '')}")


def one_run(plan: Plan, made: Servers, ports: Ports, count: int) -> list[int]:
    with running(plan, made.targets(0), ports) as peer:
        assert peer.program is not None
        wait_until(partial(answers, peer.ports, made.files), "lbfast to reach its servers")
        with held(peer.ports["echo"], count):
            said = Client(peer.program.folder / "run" / "control.sock").call("statistics")
    return [worker["connections"] for worker in said["workers"]]


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(words)
    plan = Plan("lbfast", args.workers, lambda s, n, f: start_lbfast(s, n, f, LOG_NONE), "")
    ports = Ports()
    worst = 0.0
    with servers(ports, 1) as made:
        for _ in range(args.runs):
            shares = one_run(plan, made, ports, args.connections)
            uneven = max(shares) / statistics.mean(shares)
            worst = max(worst, uneven)
            print(json.dumps({"connections": shares, "fullest_to_mean": round(uneven, 3)}), flush=True)
    print(f"{args.connections} connections over {args.workers} workers: fullest at most {worst:.2f} of the mean")


if __name__ == "__main__":
    main(sys.argv[1:])
