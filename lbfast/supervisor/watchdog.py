"""Workers that live and do nothing: their loop must turn at least twice a second, whatever there is to do.

What counts is not the clock.  A worker that sleeps or is stopped is silent as long as we look; one
that wants to run is silent only for the processor time that it has burned, so that a
machine with too much to do kills nobody.  A look counts for a second at most: neither a suspended
machine nor a supervisor that was late itself makes anybody silent.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbfast.supervisor.children import Child

LOOK_EVERY: Final = 0.5  # seconds
HUNG_AFTER: Final = 5.0  # seconds of silence
_MOST_A_LOOK: Final = 1.0
_RUNNING, _STOPPED, _LEFT_ALONE = "R", "T", "tZX"  # traced by a debugger; dead already


@dataclass(frozen=True)
class Look:
    """A worker at one moment: when its loop turned last, the kernel's word for its state, its processor time."""

    progress_ms: int
    state: str = "S"
    cpu: float | None = None  # not looked at while its loop turns


def silence(before: Look, now: Look, silent: float, elapsed: float) -> float:
    """How long a worker has been silent, after another look at it."""
    if now.progress_ms != before.progress_ms:
        return 0.0
    if now.state in _LEFT_ALONE:
        return silent
    if now.state == _RUNNING:
        burned = 0.0 if before.cpu is None or now.cpu is None else now.cpu - before.cpu
        return silent + min(max(0.0, burned), _MOST_A_LOOK)
    return silent + min(elapsed, _MOST_A_LOOK)


@dataclass
class _Watched:
    look: Look
    silent: float = 0.0


class Watchdog:
    """``counters(seat)`` of the worker on a seat: ``progress_ms`` says when its loop turned last."""

    def __init__(self, counters: Callable[[int], Any]) -> None:
        self._counters = counters
        self._watched: dict[int, _Watched] = {}  # by pid
        self._looked_at: float | None = None

    def watch(
        self,
        workers: Callable[[], list[Child]],
        later: Callable[[float, Callable[[], None]], None],
        complain: Callable[[str], None],
    ) -> None:
        """Look now and again from now on, and kill those that hang; the supervisor replaces them."""
        # One that leaves may count its turns in memory of an older layout; its relief has a limit of its own.
        staying = [worker for worker in workers() if not worker.is_leaving and worker.seat >= 0]
        for worker, how in self.look(staying, time.monotonic()):
            complain(f"{worker.name} (pid {worker.pid}) {how}; killed")
            worker.kill(signal.SIGKILL)
        later(LOOK_EVERY, lambda: self.watch(workers, later, complain))

    def look(self, workers: Iterable[Child], now: float) -> list[tuple[Child, str]]:
        """Those that hang, each with what is to be said of it; ``now`` is monotonic."""
        elapsed = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        before, self._watched = self._watched, {}
        hung = []
        for worker in workers:
            if not worker.ready:
                continue
            watched = self._watched[worker.pid] = self._judge(worker, before.get(worker.pid), elapsed)
            if watched.silent >= HUNG_AFTER:
                hung.append((worker, _words(watched)))
        return hung

    def _judge(self, worker: Child, watched: _Watched | None, elapsed: float) -> _Watched:
        look = Look(self._counters(worker.seat)["progress_ms"])
        if watched is None or look.progress_ms != watched.look.progress_ms:
            return _Watched(look)
        look = _look_closer(worker.pid, look)
        return _Watched(look, silence(watched.look, look, watched.silent, elapsed))


def _look_closer(pid: int, look: Look) -> Look:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Look(look.progress_ms, "X")
    return Look(look.progress_ms, fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


def _words(watched: _Watched) -> str:
    kind = {_STOPPED: "it is stopped by a signal", _RUNNING: "it runs in circles"}
    return f"has not turned its loop for {watched.silent:.0f} s ({kind.get(watched.look.state, 'it sleeps')})"
