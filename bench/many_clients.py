"""What a connection costs with a small and with a large stick table.

    python -m bench.many_clients [--few 1000] [--many 1000000] [--rounds 5] [--connections 20000]

Two lbfasts with the same settings, one worker each.  First so many addresses each make a connection, so that the tables
hold 1,000 and 1,000,000 entries; then connections come from addresses chosen at random among them (``crowd.c``), the
two lbfasts in turn.  Prints a line a sample and the ratio of the medians of CPU time a connection.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.origins import servers
from bench.peers import TOP, Plan, find_program, running, start_program
from bench.procs import Ports, wait_until
from bench.verify import answers

AT_ONCE = 64
WITHIN = 600


def render(services: Sequence[Any], size: int) -> str:
    parts = ['workers = 1\n\n[log]\ntarget = "none"\n']
    parts += [
        f"""
[[virtual_service]]
label = "{service.label}"
address = "127.0.0.1"
ports = "{service.port}"
client_speaks_first = true
persistence = {{ table_size = {size} }}

  [[virtual_service.real_server]]
  label = "{service.label} server"
  address = "127.0.0.1"
  port = {service.target}
"""
        for service in services
    ]
    return "".join(parts)


def crowd(program: Path, port: int, clients: int, connections: int, *words: str) -> dict[str, Any]:
    command = [str(program), str(port), str(clients), str(connections), str(AT_ONCE), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)
    if done.returncode != 0:
        raise RuntimeError(f"crowd: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["errors"] or found["wrong"]:
        raise RuntimeError(f"crowd: {found['errors']} errors, {found['wrong']} wrong answers: no figure from this run")
    return found


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=20_000)
    args = parser.parse_args(words)
    size = args.many * 3 // 2  # so that no bucket is full
    plan = Plan("lbfast", 1, lambda s, _n, f: start_program(render(s, size), f), "")
    costs: dict[int, list[float]] = {args.few: [], args.many: []}
    with contextlib.ExitStack() as stack:
        built = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbfast-bench-"))) / "crowd"
        subprocess.run([find_program("cc", "gcc"), "-O2", "-o", str(built), str(TOP / "bench/crowd.c")], check=True)
        ports = Ports()
        made = stack.enter_context(servers(ports, len(costs)))
        peers = {}
        for index, clients in enumerate(costs):
            peers[clients] = stack.enter_context(running(plan, made.targets(index), ports))
            wait_until(partial(answers, peers[clients].ports, made.files), "lbfast to reach its servers")
            peers[clients].pids = peers[clients].program.pids()
            filled = crowd(built, peers[clients].ports["plain"], clients, clients, "once")
            print(f"{clients} clients known after {filled['seconds']:.1f} s", flush=True)
        for _ in range(args.rounds):
            for clients, peer in peers.items():
                before = peer.cpu()
                crowd(built, peer.ports["plain"], clients, args.connections)
                cost = 1e6 * (peer.cpu() - before) / args.connections
                costs[clients].append(cost)
                print(json.dumps({"clients": clients, "cpu_us_per_connection": round(cost, 2)}), flush=True)
    few, many = (statistics.median(found) for found in costs.values())
    print(f"{args.many} entries : {args.few}, CPU per connection: {many / few:.2f} ({many:.1f} us : {few:.1f} us)")


if __name__ == "__main__":
    main(sys.argv[1:])
