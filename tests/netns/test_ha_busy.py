"""A machine on which other programs take every core: the pair is late, says so, and moves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme
from ha_lab import BOXES, Lab, served_pair
from harness import wait_for

pytestmark = pytest.mark.root

CLIENTS = 20
BUSY_S = 8
LOOPS = 4  # on each core
SPIN = f"import time\nend = time.monotonic() + {BUSY_S}\nprint('READY', flush=True)\nwhile time.monotonic() < end: pass"


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with served_pair("hy", ca, clients=CLIENTS) as found:
        found.start_pair()
        found.wait_ready()
        yield found


@contextmanager
def busy_cores() -> Iterator[list[subprocess.Popen[str]]]:
    """Loops that end by themselves."""
    words = [sys.executable, "-S", "-c", SPIN]
    count = LOOPS * len(os.sched_getaffinity(0))
    loops = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for loop in loops:
            assert loop.stdout is not None
            assert loop.stdout.readline() == "READY\n"
        yield loops
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()


def test_busy_loops_on_every_core_move_nothing(pair: Lab) -> None:
    before = {name: [move["why"] for move in pair.status(name)["moves"]] for name in BOXES}
    clients = pair.clients(CLIENTS)
    at = time.monotonic()
    with busy_cores() as loops:
        wait_for(lambda: all(loop.poll() is not None for loop in loops), 10 * BUSY_S, "the loops to end")
    assert time.monotonic() - at >= BUSY_S * 0.9
    after = {name: pair.status(name) for name in BOXES}
    assert {name: [move["why"] for move in after[name]["moves"]] for name in BOXES} == before
    assert (pair.holds("a"), pair.holds("b")) == (True, False)
    pair.wait_states(a="active", b="passive")
    for status in after.values():
        # Each counts how late its own turns were, and hears the same of its peer's heartbeats.
        assert status["heartbeats"]["own_late_most_ms"] > 0
        assert status["heartbeats"]["peer_late_most_ms"] > 0
    report = clients.report_after(time.monotonic(), CLIENTS)
    assert report.moved() == 0
    assert report.cut() == 0
    assert max(report.outages(at)) < float("inf")
