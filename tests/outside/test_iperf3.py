"""A real iperf3 behind a virtual service: both directions, several streams, one server for all of a test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import Lbfast, free_port, wait_for
from programs import behind, need, opened, run, server

pytestmark = pytest.mark.outside


@pytest.fixture(scope="module")
def iperf3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lbfast, int]]:
    """Two servers: a test whose connections were split over them could not even begin.

    One worker: with ``--bidir`` iperf3 tells its two streams apart by the order in which the server accepts them.
    Two workers connect at the same moment and may swap them; then both ends of each stream send and nobody reads.
    """
    program = need("iperf3", "iperf3")
    folder: Path = tmp_path_factory.mktemp("iperf3")
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        for port in ports:
            stack.enter_context(server([program, "-s", "-B", "127.0.0.1", "-p", str(port)], port, folder))
        yield stack.enter_context(behind(ports, workers=1))


def measured(lb: Lbfast, port: int, options: list[str]) -> tuple[list[int], dict[str, Any]] | None:
    """What was opened before, and iperf3's result; None while its server makes a new listening socket.

    It does so after each client, and whoever waits in the old one is reset.
    """
    before = opened(lb)
    result = json.loads(run(need("iperf3", "iperf3"), "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-J", *options))
    if "unable to receive control message" in result.get("error", ""):
        return None
    assert "error" not in result, result["error"]
    return before, result


@pytest.mark.parametrize("options", [[], ["-R"], ["-P", "4"], ["-R", "-P", "4"], ["--bidir"]], ids=" ".join)
def test_a_second_of_bulk(iperf3: tuple[Lbfast, int], options: list[str]) -> None:
    lb, port = iperf3
    before, result = wait_for(lambda: measured(lb, port, options), 30, "the server to be free")
    streams = (4 if "-P" in options else 1) * (2 if "--bidir" in options else 1)
    assert sum(opened(lb)) - sum(before) == streams + 1
    assert opened(lb).count(0) == 1, "the second server was used as well"
    names = ["sum_received"] + (["sum_received_bidir_reverse"] if "--bidir" in options else [])
    for name in names:
        received = result["end"][name]["bytes"]
        assert received > 20_000_000, f"{name}: {received} bytes in a second"
    counted = lb.call("statistics")["virtual_services"][0]["real_servers"]
    assert sum(real["bytes_in"] + real["bytes_out"] for real in counted) > 20_000_000
