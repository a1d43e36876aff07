"""Many virtual services: how long the start takes, and what it costs when nobody comes.

    python -m bench.many_services [--services 1000] [--reals 10] [--workers 1] [--check none|connect] [--seconds 20]
                                  [--peers lbfast,haproxy]

Each service has a port of its own on 127.0.0.1, each real server an address of its own in 127.1.0.0/16; one process
accepts for all of them.  ``started_s`` is from the fork until the last service accepts, ``ready_s`` until lbfast says
READY: every worker accepts, control answers, each probed server has a verdict.  Then the CPU time of each process over
some seconds in which no client comes, as percent of one core.  One JSON line a peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.machine import load
from bench.peers import Missing, find_program, start_program
from bench.procs import Ports, Program, cpu_seconds, process_tree, pss_kb, wait_until

START_WITHIN = 60.0
SETTLE_S = 5.0  # one interval of the health checks, so that first probes are not counted


def real_address(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


def render_lbfast(ports: Sequence[int], reals: int, target: int, check: str, workers: int) -> str:
    parts = [f'workers = {workers}\n\n[log]\ntarget = "none"\n']
    for index, port in enumerate(ports):
        parts.append(f'\n[[virtual_service]]\nlabel = "S{index}"\naddress = "127.0.0.1"\nports = "{port}"\n')
        parts.append(f'health_check = {{ type = "{check}" }}\n')
        for number in range(reals):
            address = real_address(index * reals + number)
            parts.append(f'[[virtual_service.real_server]]\nlabel = "R{number}"\naddress = "{address}"\n')
            parts.append(f"port = {target}\n")
    return "".join(parts)


def render_haproxy(ports: Sequence[int], reals: int, target: int, check: str, workers: int) -> str:
    checked = " check inter 4s" if check == "connect" else ""
    parts = [f"global\n  nbthread {workers}\n  maxconn 2000\ndefaults\n  mode tcp\n"]
    parts.append("  timeout connect 4s\n  timeout client 12h\n  timeout server 12h\n")
    for index, port in enumerate(ports):
        parts.append(f"listen S{index}\n  bind 127.0.0.1:{port} shards by-thread\n  balance leastconn\n")
        parts.append("  stick-table type ip size 100k expire 30m\n  stick on src\n")
        at = index * reals
        parts += [f"  server R{number} {real_address(at + number)}:{target}{checked}\n" for number in range(reals)]
    return "".join(parts)


@contextlib.contextmanager
def accepting(port: int) -> Iterator[None]:
    """A process that accepts on every local address and closes at once."""
    pid = os.fork()
    if pid == 0:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(4096)
        while True:
            select.select([listener], [], [])
            listener.accept()[0].close()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def start_haproxy(text: str, folder: Path) -> Program:
    (folder / "haproxy.cfg").write_text(text)
    return Program("haproxy", [find_program("haproxy", "haproxy"), "-db", "-f", "haproxy.cfg"], folder)


def accepts_all(ports: Sequence[int]) -> bool:
    """Does each of them accept?  Asked from the last one on: it is the last to be opened."""
    for port in reversed(ports):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
    return True


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def measure(peer: str, ports: Sequence[int], text: str, seconds: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="lbfast-bench-"))
    began = time.monotonic()
    program = (start_program if peer == "lbfast" else start_haproxy)(text, folder)
    try:

        def is_up() -> bool:
            if program.process.poll() is not None:
                raise RuntimeError(f"{peer} ended with {program.process.returncode}:\n{program.said()}")
            return accepts_all(ports[-1:])

        wait_until(is_up, f"{peer} to accept", START_WITHIN)
        wait_until(lambda: accepts_all(ports), f"{peer} to accept on all ports", START_WITHIN)
        found = {"started_s": round(time.monotonic() - began, 2)}
        if peer == "lbfast":
            wait_until(lambda: "READY" in program.said(), "READY", START_WITHIN)
            found["ready_s"] = round(time.monotonic() - began, 2)
        time.sleep(SETTLE_S)
        return {**found, **idle(program, seconds)}
    finally:
        program.stop()


def idle(program: Program, seconds: float) -> dict[str, Any]:
    pids = process_tree(program.process.pid)
    before = {pid: cpu_seconds([pid]) for pid in pids}
    time.sleep(seconds)
    used = {pid: cpu_seconds([pid]) - before[pid] for pid in pids}
    return {
        "idle_percent": round(100 * sum(used.values()) / seconds, 2),
        "idle_percent_by_process": {name_of(pid): round(100 * it / seconds, 2) for pid, it in used.items()},
        "memory_mb": round(pss_kb(pids) / 1024),
    }


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--reals", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--check", choices=("none", "connect"), default="none")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--peers", default="lbfast,haproxy")
    args = parser.parse_args(words)
    taker = Ports()
    target, ports = taker.take(), [taker.take() for _ in range(args.services)]
    with accepting(target):
        for peer in args.peers.split(","):
            render = render_lbfast if peer == "lbfast" else render_haproxy
            text = render(ports, args.reals, target, args.check, args.workers)
            try:
                found = measure(peer, ports, text, args.seconds)
            except Missing as missing:
                print(f"left out: {missing}", flush=True)
                continue
            asked = {"peer": peer, "services": args.services, "reals": args.reals, "check": args.check}
            print(json.dumps({**asked, "workers": args.workers, **found, "load": load()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
