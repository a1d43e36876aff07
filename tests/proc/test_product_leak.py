"""Many short connections leave nothing behind: memory, descriptors, pipes and table counts are where they were."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from footprint import Footprint, footprint
from harness import Lbfast, free_port, real_server, scaled, virtual_service, wait_for
from storm import Storm, StormServer

WARM_UP, CONNECTIONS = 6_000, 20_000


def settled(now: Footprint, before: Footprint) -> Footprint | None:
    """The footprint once nothing is open; a look can meet the control socket's end of the look before it."""
    gone = all(now.descriptors[name] <= count for name, count in before.descriptors.items())
    return now if gone and now.connections == 0 else None


@pytest.mark.timeout(scaled(300))
def test_twenty_thousand_connections_leave_nothing_behind() -> None:
    """Each with its request, an answer of 200 kB for every eighth, a tenth ended by RST; 200 client addresses."""
    with ExitStack() as stack:
        servers = [stack.enter_context(StormServer()) for _ in range(2)]
        port = free_port()
        reals = [real_server(f"Server {number}", server.port) for number, server in enumerate(servers)]
        config = {
            "workers": 2,
            "log": {"target": "none"},
            "virtual_service": [virtual_service(port, reals, scheduler="hash")],
        }
        lb = stack.enter_context(Lbfast(config))
        storm = Storm(port, clients=200)
        assert storm.run(WARM_UP, scaled(100)) == 0
        before = footprint(lb)
        assert storm.run(CONNECTIONS, scaled(150)) == 0
        after = wait_for(lambda: settled(footprint(lb), before), 10, "connections and descriptors to go")
        assert after.entries == before.entries == 200
        assert after.holds == 0
        assert after.pipes <= before.pipes + 4, "pipes are pooled, not lost"
        for name, memory in after.memory.items():
            assert memory - before.memory[name] < 1 << 20, f"{name} grew by {memory - before.memory[name]} bytes"
        opened = sum(real["opened"] for real in lb.call("statistics")["virtual_services"][0]["real_servers"])
        assert opened == WARM_UP + CONNECTIONS
