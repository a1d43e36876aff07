"""The primary takes the addresses back by itself, but not for what an order would be refused for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trustme
from ha_lab import SERVERS, Lab, running_pair
from harness import wait_for

pytestmark = pytest.mark.root

UNREACHED = f"table inet t {{ chain c {{ type filter hook output priority 0; ip daddr {SERVERS[0]} drop; }}; }}"
NOT_YET = "failback: not yet, Server 1 of Symphony is reached by the active box only"


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hy", ca, settings={"auto_failback": True, "failback_delay": "1s"}) as found:
        yield found


def test_failback_waits_until_the_primary_is_ready(pair: Lab) -> None:
    pair.wait_ready()
    pair.nft("a", UNREACHED)
    wait_for(lambda: {"here": "up", "there": "down"}.items() <= pair.status("b")["servers"][0].items(), 20, "the loss")
    pair.take_over("b")
    pair.wait_told("a", NOT_YET)
    assert pair.holds("b")
    pair.nft("a", "delete table inet t")
    pair.wait_states(30, a="active", b="passive")
    pair.wait_told("a", "failback: the primary asks for the addresses again")
