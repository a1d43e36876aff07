"""A box that stood still announces its addresses anew: neighbours may have learned the other one's MAC meanwhile."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import VIP, Lab, served_pair
from harness import processes_of_session, wait_for

from lbfast.ha.takeover import ANNOUNCE_MS

pytestmark = pytest.mark.root


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    """Announcements for their own sake come once an hour: they heal nothing here."""
    with served_pair("hm", ca, settings={"announce_interval": "1h"}) as found:
        found.start_pair()
        found.wait_ready()
        yield found


def mac(pair: Lab, name: str) -> str:
    return str(json.loads(pair.ip(name, "-j", "link", "show", "dev", "eth0"))[0]["address"])


def known(pair: Lab) -> str:
    """The MAC that the client's machine has of the service address."""
    found = json.loads(pair.ip("c", "-j", "neigh", "show", "to", VIP))
    return str(found[0].get("lladdr", "")) if found else ""


def test_the_neighbours_are_told_again_after_a_pause(pair: Lab) -> None:
    wait_for(
        lambda: pair.status("a")["moves"][-1]["ago_ms"] > ANNOUNCE_MS[-1] + 500, 30, "the announcements of the start"
    )
    pids = [pair.boxes["a"].pid, *processes_of_session(pair.boxes["a"].pid)]
    for pid in pids:
        pair.signal(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: pair.status("b")["peer"]["silent_ms"] > 1000, 20, "its heartbeats to end")
        # As if the other box had taken the addresses and let them go again: the client believes that it has them.
        pair.ip("c", "neigh", "replace", VIP, "lladdr", mac(pair, "b"), "nud", "reachable", "dev", "eth0")
        assert known(pair) == mac(pair, "b")
    finally:
        for pid in pids:
            pair.signal(pid, signal.SIGCONT)
    wait_for(lambda: known(pair) == mac(pair, "a"), 20, "the client to learn who has the address")
    assert pair.holds("a")
