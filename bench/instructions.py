"""Instructions that a peer spends on a unit of work, where the machine counts them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterable

from bench.outcome import Outcome


def count_instructions(pids: Iterable[int], run: Callable[[], Outcome]) -> float | None:
    """Do the work once more under ``perf stat`` on the peer's processes: user and kernel together, per unit."""
    command = ["perf", "stat", "-x,", "-e", "instructions", "-p", ",".join(map(str, pids))]
    perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    outcome = run()
    perf.send_signal(signal.SIGINT)
    return parse_count(perf.communicate(timeout=20)[1], outcome.units)


def parse_count(said: str, units: float) -> float | None:
    """From perf's fields: ``123456,,instructions,...``; None when it counted nothing."""
    for line in said.splitlines():
        count, *rest = line.split(",")
        if count.isdigit() and "instructions" in rest and units > 0:
            return int(count) / units
    return None
