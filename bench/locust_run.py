"""`make locust`: servers, an lbfast in front of them, and locust without a screen in a process of its own.

    python -m bench.locust_run [--users 60] [--seconds 15] [OTHER LOCUST OPTIONS]

Ends with 1 when a request failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.origins import servers
from bench.peers import TOP, plan_peers, running
from bench.procs import Ports, wait_until
from bench.verify import answers


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=15)
    args, others = parser.parse_known_args()
    plan = next(plan for plan in plan_peers((2,))[0] if plan.name == "lbfast")
    ports = Ports()
    with servers(ports, 1) as made, running(plan, made.targets(0), ports) as peer:
        wait_until(lambda: answers(peer.ports, made.files), "lbfast to reach its servers")
        command = [sys.executable, "-m", "locust", "-f", str(TOP / "bench/locustfile.py"), "--headless"]
        command += ["--only-summary", "--users", str(args.users), "--spawn-rate", str(args.users)]
        command += ["--run-time", f"{args.seconds}s", "--host", f"https://127.0.0.1:{peer.ports['tls']}"]
        command += ["--path", "/s", "--tcp", f"127.0.0.1:{peer.ports['echo']}", *others]
        return subprocess.run(command, cwd=TOP, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
