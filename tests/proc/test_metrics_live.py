"""/metrics of a running lbfast: no counter ever goes back, also not when a worker is killed under load."""

from __future__ import annotations

import os
import signal

from api_world import Api, web_lbfast
from harness import free_port, real_server, virtual_service
from live_world import Load, named_servers
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_for

Sample = tuple[str, tuple[tuple[str, str], ...]]
OPENED = "lbfast_real_opened_connections_total"


def counters(api: Api) -> dict[Sample, float]:
    """Every counter there is at this moment, by name and labels."""
    answer = api.get("/metrics")
    assert answer.status == 200, answer.body
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        if family.type == "counter"
        for sample in family.samples
    }


def went_back(before: dict[Sample, float], after: dict[Sample, float]) -> list[str]:
    return [
        f"{sample}: {value} -> {after.get(sample)}" for sample, value in before.items() if after.get(sample, -1) < value
    ]


def test_no_counter_goes_back_when_a_worker_is_killed_under_load() -> None:
    port = free_port()
    with named_servers(("A", "B")) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with (
            web_lbfast(services=[virtual_service(port, reals)], workers=2) as (lbfast, api),
            Load(port, clients=6, long=4) as load,
        ):
            wait_for(lambda: load.visits > 20 and load.exchanges > 4, 30, "traffic")
            seen = counters(api)
            for worker in ("worker0", "worker1"):
                pid = lbfast.child(worker)
                os.kill(pid, signal.SIGKILL)
                lbfast.allow_stderr = True  # it tells of the death
                at = load.visits
                faults: list[str] = []

                def look(at: int = at, faults: list[str] = faults) -> bool:
                    nonlocal seen
                    found = counters(api)
                    faults += went_back(seen, found)
                    seen = found
                    return load.visits > at + 20

                lbfast.wait_replaced(worker, pid)
                wait_for(look, 30, "traffic after the death")
                assert not faults
            assert sum(value for (name, _), value in seen.items() if name == OPENED) > 40
