"""Two boxes with unlike numbers of workers: what each knows of its clients is the same, entry by entry."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import Lab, served_pair
from harness import wait_for

pytestmark = pytest.mark.root

CLIENTS = 200  # each with an address of its own


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with served_pair("he", ca, clients=CLIENTS) as found:
        found.start_pair(found.config().replace("workers = 2", "workers = 1", 1))
        found.wait_ready()
        yield found


def entries(pair: Lab, name: str) -> dict[str, str]:
    """Which real server each client has."""
    found = pair.boxes[name].call("persistence_show", service="Symphony", limit=2 * CLIENTS)["entries"]
    return {it["client"]: it["real"] for it in found}


def is_caught_up(pair: Lab, name: str) -> bool:
    """Whether everything that this box has to tell has been acknowledged."""
    told = pair.status(name)["replication"]
    return bool(told["synced"] and told["lag_entries"] == 0)


def compare(pair: Lab, active: str) -> None:
    wait_for(lambda: is_caught_up(pair, active), 30, "the lag to be 0")
    here, there = entries(pair, "a"), entries(pair, "b")
    assert here == there
    assert set(here) == {f"10.77.1.{number}" for number in range(1, CLIENTS + 1)}
    assert len(set(here.values())) == 3


def test_both_boxes_know_the_same_of_every_client(pair: Lab) -> None:
    for active, passive in (("a", "b"), ("b", "a")):
        pair.clients(CLIENTS, every=0.5, held=20).report()
        compare(pair, active)
        resyncs = pair.status(active)["replication"]["resyncs"]
        box = pair.boxes[active]
        old = box.child("worker0")
        pair.signal(old, signal.SIGKILL)
        box.wait_replaced("worker0", old)
        wait_for(lambda: pair.status(active)["replication"]["resyncs"] > resyncs, 20, "a resync after its death")  # noqa: B023
        pair.clients(CLIENTS, every=0.5).report()
        compare(pair, active)
        if active == "a":
            pair.take_over(passive)
            pair.wait_ready()
