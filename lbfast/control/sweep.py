"""Expires persistence entries a few buckets at a time, so that a whole pass takes about half a minute."""

from __future__ import annotations

from typing import Final

from lbfast.control.engine import Engine

PASS_S: Final = 30
ENTRIES_PER_BUCKET: Final = 14


def buckets_per_second(capacity: int) -> int:
    """How many buckets to visit each second."""
    buckets = -(-capacity // ENTRIES_PER_BUCKET)
    return max(1, -(-buckets // PASS_S))


def sweep_once(engine: Engine) -> int:
    """The work of one second, over all tables; how many entries went."""
    now_ms = engine.clock.now_ms()
    gone = 0
    for service in engine.catalog.services:
        stick = engine.shared.sticks.get(service.slot)
        if stick is not None:
            gone += stick.sweep(service.timeout_ms, now_ms, buckets_per_second(stick.capacity))
    return gone
