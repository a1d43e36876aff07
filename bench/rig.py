"""The bench: every peer, the same servers, the same work, samples in turn; JSON lines, a table and pictures.

    python -m bench.rig [--budget SECONDS] [--quick] [--only a1,c] [--peers lbfast,haproxy] [--rounds N] [--out FILE]

A round gives every work to every peer once, the peers in turn, every other round backwards, so that a disturbance or a
warm machine hits all of them.  There are as many rounds as the budget holds.  Before the first round and after every
work each peer must pass on known bytes; a sample with an error, or of a peer that fails this, is kept and marked, and
no figure is taken from it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from bench import report
from bench.instructions import count_instructions
from bench.machine import commit, counts_instructions, load, machine, unlimited_pipes
from bench.origins import servers
from bench.outcome import Outcome
from bench.peers import TOP, Missing, Peer, find_program, plan_peers, running
from bench.procs import Ports, wait_until
from bench.verify import WrongBytes, answers, verify
from bench.works import Tools, Work, all_works

IDLE_CONNECTIONS, IDLE_CONNECTIONS_QUICK = 8000, 2000
QUICK_SHARE = 0.4


@dataclass
class Rig:
    """A run: its peers and works, where the samples go, and when it must end."""

    peers: list[Peer]
    works: list[Work]
    files: Path
    paced: Path
    out: TextIO
    deadline: float
    is_quick: bool
    facts: dict[str, Any]
    has_instructions: bool
    samples: list[dict[str, Any]] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)  # work key -> seconds of its last turn

    def tools(self) -> Tools:
        count = IDLE_CONNECTIONS_QUICK if self.is_quick else IDLE_CONNECTIONS
        return Tools(self.paced, self.files, count, self.slowest_rate)

    def slowest_rate(self) -> float:
        """Requests a second of the slowest one-worker peer at 64 keep-alive connections: the median of its samples."""
        rates: dict[str, list[float]] = {}
        for sample in self.samples:
            if sample["work"] == "b64" and sample["workers"] == 1 and sample["used"]:
                rates.setdefault(sample["peer"], []).append(sample["units_per_second"])
        return min((statistics.median(found) for found in rates.values()), default=0.0)

    def run(self, rounds: int) -> None:
        for number in range(rounds):
            for work in self.works:
                if number and work.first_round_only:
                    continue
                needed = self.took.get(work.key, 0.0)
                if time.monotonic() + needed * 1.1 > self.deadline:
                    print(f"round {number + 1}: the time is up before {work.title}", flush=True)
                    return
                began = time.monotonic()
                self.turn(work, number)
                self.took[work.key] = time.monotonic() - began
            print(f"round {number + 1} done, {self.deadline - time.monotonic():.0f} s left", flush=True)

    def turn(self, work: Work, number: int) -> None:
        """One work, all peers it is meant for, in turn; as often as the work asks for."""
        peers = [peer for peer in self.peers if is_meant_for(work, peer)]
        for repeat in range(1 if self.is_quick else work.repeats):
            self.sweep(work, peers[::-1] if (number + repeat) % 2 else peers, number)

    def sweep(self, work: Work, peers: Sequence[Peer], number: int) -> None:
        seconds = work.seconds * (QUICK_SHARE if self.is_quick and work.repeats == 1 else 1.0)
        for peer in peers:
            try:
                outcome = work.run(peer, seconds, self.tools())
            except (OSError, Missing, subprocess.SubprocessError) as error:
                print(f"{work.key} {peer.plan.label}: left out: {error}", flush=True)
                continue
            self.keep(work, peer, number, outcome)

    def keep(self, work: Work, peer: Peer, number: int, outcome: Outcome) -> None:
        fault = self.fault_of(peer, with_large=False)
        used = outcome.is_usable and not fault
        if not used:
            said = fault or f"{outcome.errors} errors, {outcome.wrong} answers with wrong bytes"
            print(f"{work.key} {peer.plan.label}: not used: {said}", flush=True)
        sample = {
            "at": datetime.now().astimezone().isoformat(timespec="seconds"),
            "work": work.key,
            "title": work.title,
            "peer": peer.plan.name,
            "workers": peer.plan.workers,
            "version": peer.plan.version,
            "round": number,
            "used": used,
            **outcome.as_record(),
            "load": load(),
            **self.facts,
        }
        if self.has_instructions and number == 0 and used and peer.pids:
            run = lambda: work.run(peer, sample["seconds"], self.tools())  # noqa: E731 - once more, counted
            sample["instructions_per_unit"] = count_instructions(peer.pids, run)
        self.samples.append(sample)
        self.out.write(json.dumps(sample) + "\n")
        self.out.flush()

    def fault_of(self, peer: Peer, with_large: bool) -> str:
        """What is wrong with what the peer passes on, or nothing."""
        try:
            verify(peer.ports, self.files, with_large)
        except (OSError, WrongBytes, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        return ""


def is_meant_for(work: Work, peer: Peer) -> bool:
    if peer.plan.name == "lbfast, logging" and not work.logged:
        return False
    if peer.plan.workers > 1 and not work.two_workers:
        return False
    # Two descriptors a connection, 20,000 a process here: peers whose workers are threads cannot hold twice 8,000.
    is_threaded = peer.plan.name.startswith(("haproxy", "envoy"))
    return not (work.key == "f" and peer.plan.workers > 1 and is_threaded)


def build_paced(folder: Path) -> Path:
    compiler = find_program("cc", "gcc")
    built = folder / "paced"
    subprocess.run([compiler, "-O2", "-o", str(built), str(TOP / "bench/paced.c")], check=True)
    return built


def start_all(stack: contextlib.ExitStack, names: Sequence[str]) -> tuple[list[Peer], Path]:
    """All peers, accepting and with known bytes passed on; and the servers' files."""
    plans, absent = plan_peers((1, 2))
    for line in absent:
        print(f"left out: {line}", flush=True)
    plans = [plan for plan in plans if not names or plan.name in names]
    ports = Ports()
    made = stack.enter_context(servers(ports, len(plans)))
    peers = []
    for index, plan in enumerate(plans):
        try:
            peer = stack.enter_context(running(plan, made.targets(index), ports))
            wait_until(lambda peer=peer: answers(peer.ports, made.files), f"{plan.label} to reach its servers")  # type: ignore[misc]
            verify(peer.ports, made.files, with_large=True)
        except (OSError, RuntimeError, WrongBytes) as error:
            if plan.name == "lbfast":
                raise SystemExit(f"bench: {plan.label} does not run: {error}") from error
            print(f"left out: {plan.label}: {error}", flush=True)
            continue
        peer.pids = peer.program.pids() if peer.program else []
        peers.append(peer)
    return peers, made.files


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, help="seconds that the run may take")
    parser.add_argument("--quick", action="store_true", help="short samples, one or two rounds, fewer idle connections")
    parser.add_argument("--only", default="", help="keys of works, with commas; default: all")
    parser.add_argument("--peers", default="", help="names of peers, with |; default: all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON lines; default: bench/results/COMMIT-TIME.jsonl")
    parser.add_argument("--commit", default="", help="name of what is measured, where git does not know it")
    return parser.parse_args(words)


def chosen_works(only: str) -> list[Work]:
    works = all_works()
    wanted = [key for key in only.split(",") if key]
    unknown = set(wanted) - {work.key for work in works}
    if unknown:
        sys.exit(
            f"bench: no such work: {', '.join(sorted(unknown))}; there are {', '.join(work.key for work in works)}"
        )
    if any(key.startswith("g") for key in wanted) and "b64" not in wanted:
        wanted.append("b64")  # it sets the rates
    return [replace(work) for work in works if not wanted or work.key in wanted]


def results_file(asked: Path | None, name: str) -> Path:
    out = asked or TOP / "bench/results" / f"{name.rstrip('+')}-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def main(words: Sequence[str]) -> None:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that peers are stopped on the way out
    args = parse(words)
    budget = args.budget or (75.0 if args.quick else 470.0)
    name = args.commit or commit(TOP)
    out = results_file(args.out, name)
    facts = {"commit": name, "run": out.stem, "quick": args.quick, **machine()}
    has_instructions = counts_instructions()
    if not has_instructions:
        print("left out: instructions per unit: perf stat counts none on this machine", flush=True)
    with contextlib.ExitStack() as stack, out.open("w") as lines:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbfast-bench-")))
        paced = build_paced(folder)
        facts["pipes_unlimited"] = stack.enter_context(unlimited_pipes())
        peers, files = start_all(stack, [peer for peer in args.peers.split("|") if peer])
        if not peers:
            sys.exit("bench: no peer runs here")
        print(f"{len(peers)} peers on {os.cpu_count()} cores, load {load():.1f}; samples go to {out}", flush=True)
        works = chosen_works(args.only)
        rig = Rig(peers, works, files, paced, lines, began + budget, args.quick, facts, has_instructions)
        rig.run(args.rounds)
    report.write(out, TOP / "bench/results")


if __name__ == "__main__":
    main(sys.argv[1:])
