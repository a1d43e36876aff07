"""The health process, really forked, with the real table, the real channel and a real configuration."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import TIMEOUT_SCALE

from lbfast._table import Table
from lbfast.health.plan import plan_checks
from lbfast.health.process import run_health
from lbfast.health.results import ProbeResults
from lbfast.health.spec import ProbeType
from lbfast.model.appliance import Config
from lbfast.model.state import Health
from lbfast.supervisor.channel import Channel

LAYOUT = SimpleNamespace(
    services={"Symphony": 3}, reals={("Symphony", "S1"): 10, ("Symphony", "S2"): 11, ("Symphony", "fallback"): 12}
)


def make_config(ports: list[int], **check: Any) -> Config:
    content = {
        "virtual_service": [
            {
                "label": "Symphony",
                "address": "127.0.0.1",
                "ports": "8443,9000-9002",
                "health_check": {"interval": "100ms", "timeout": "1s", **check},
                "real_server": [
                    {"label": f"S{n}", "address": "127.0.0.1", **({"port": port} if port else {})}
                    for n, port in enumerate(ports, 1)
                ],
                "fallback_server": {"address": "127.0.0.1", "port": ports[0] or 9_081},
            }
        ]
    }
    return Config.model_validate(content)


class Forked:
    """Shared memory and a child that runs ``run_health``; ``restart`` forks another one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.table = Table.create()
        self.results = ProbeResults.create(64)
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        for (_, label), slot in LAYOUT.reals.items():
            self.table.write_real(slot, _real_settings(slot, label))
        self.pid = -1
        self.start()

    def start(self) -> None:
        self.channel, theirs = Channel.pair()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                self.channel.close()
                shared = SimpleNamespace(table=self.table, results=self.results, health_wake=self.wake)
                code = run_health(self.config, LAYOUT, shared, theirs)
            finally:
                os._exit(code)
        theirs.close()

    def wait_message(self, event: str, **content: Any) -> dict[str, Any]:
        while True:
            message = self.channel.receive(10 * TIMEOUT_SCALE)
            assert message is not None, f"the health process ended before {event} {content}"
            if message["event"] == event and all(message.get(key) == value for key, value in content.items()):
                return message

    def wait_exit(self) -> int:
        pidfd = os.pidfd_open(self.pid)
        try:
            assert select.select([pidfd], [], [], 10 * TIMEOUT_SCALE)[0], "the health process does not end"
        finally:
            os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = -1
        return code

    def close(self) -> None:
        if self.pid > 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.channel.close()
        self.results.close()
        os.close(self.wake)


def _real_settings(slot: int, label: str) -> Any:
    return {
        "id": bytes([slot]) * 16,
        "service": 3,
        "address": "127.0.0.1",
        "port": 1,
        "weight": 100,
        "max_connections": 0,
        "slow_start_ms": 0,
        "is_fallback": label == "fallback",
    }


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def forked(listener: socket.socket, closed_port: int) -> Iterator[Forked]:
    made = Forked(make_config([listener.getsockname()[1], closed_port]))
    yield made
    made.close()


def test_verdicts_reach_the_table_and_the_supervisor(forked: Forked) -> None:
    forked.wait_message("verdicts")
    assert [forked.table.real(slot)["health"] for slot in (10, 11, 12)] == [Health.UP, Health.DOWN, Health.UP]
    assert forked.table.real(10)["reason"] == "connected"
    assert forked.table.real(11)["reason"].endswith("Connection refused")
    assert forked.results.last(11)[0].reason.endswith("Connection refused")


@pytest.mark.parametrize("how", ["message", "SIGTERM"])
def test_it_stops_when_told(forked: Forked, how: str) -> None:
    forked.wait_message("verdicts")
    if how == "message":
        forked.channel.send({"do": "stop"})
    else:
        os.kill(forked.pid, signal.SIGTERM)
    assert forked.wait_exit() == 0


def test_ctrl_c_is_the_supervisors_business(forked: Forked) -> None:
    forked.wait_message("verdicts")
    os.kill(forked.pid, signal.SIGINT)
    forked.channel.send({"do": "stop"})
    assert forked.wait_exit() == 0


def wait_until(condition: Any) -> None:
    limit = time.monotonic() + 10 * TIMEOUT_SCALE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def test_it_goes_on_without_a_supervisor(forked: Forked, listener: socket.socket) -> None:
    forked.wait_message("verdicts")
    forked.channel.close()
    listener.shutdown(socket.SHUT_RDWR)  # close alone would leave the child's copy listening
    wait_until(lambda: forked.table.real(10)["health"] == Health.DOWN)
    os.kill(forked.pid, signal.SIGTERM)
    assert forked.wait_exit() == 0


def test_after_a_crash_the_verdicts_stand_and_are_adopted(forked: Forked, closed_port: int) -> None:
    forked.wait_message("verdicts")
    since = forked.table.real(10)["health_since_ms"]
    os.kill(forked.pid, signal.SIGKILL)
    forked.wait_exit()
    assert forked.table.real(10)["health"] == Health.UP
    forked.channel.close()
    forked.start()
    assert forked.channel.receive(10 * TIMEOUT_SCALE) == {"event": "verdicts"}  # at once, before any transition
    before = len(forked.results.last(10))
    wait_until(lambda: len(forked.results.last(10)) > before)
    assert forked.table.real(10)["health_since_ms"] == since
    with socket.create_server(("127.0.0.1", closed_port)):
        message = forked.wait_message("health", real=11, to="up")
    assert message["from"] == "down"
    assert message["service"] == 3


def test_plan_takes_everything_from_the_configuration() -> None:
    config = make_config(
        [0, 4711],
        type="https",
        path="/health",
        method="HEAD",
        host="pacs.example",
        sni="sni.example",
        expected_status="200-204,302",
        rise=3,
        fall=4,
        jitter=0.2,
        source_address="127.0.0.1",
        all_down_grace="7s",
        flap_threshold=5,
        flap_hold="3s",
    )
    one, two, fallback = plan_checks(config, LAYOUT)
    spec = one.spec
    assert (one.slot, one.service, one.service_label, one.label) == (10, 3, "Symphony", "S1")
    assert (spec.type, spec.address, spec.port, spec.vip, spec.vport) == (
        ProbeType.HTTPS, "127.0.0.1", 8443, "127.0.0.1", 8443,
    )  # fmt: skip
    assert (spec.path, spec.method, spec.host, spec.sni) == ("/health", "HEAD", "pacs.example", "sni.example")
    assert spec.expected_status == {200, 201, 202, 203, 204, 302}
    assert (spec.interval_ms, spec.timeout_ms, spec.rise, spec.fall, spec.jitter) == (100, 1000, 3, 4, 0.2)
    assert (spec.all_down_grace_ms, spec.source_address) == (7_000, "127.0.0.1")
    assert (spec.flap.threshold, spec.flap.hold_ms, spec.flap.window_ms) == (5, 3_000, 300_000)
    assert two.spec.port == 4711
    assert (fallback.is_fallback, fallback.slot, fallback.spec.type) == (True, 12, ProbeType.CONNECT)
    assert fallback.spec.port == 9_081


def test_health_check_port_comes_first() -> None:
    checks = plan_checks(make_config([0, 4711], port=8080), LAYOUT)
    assert [check.spec.port for check in checks] == [8080, 8080, 9_081]
    none = plan_checks(make_config([0], type="none"), LAYOUT)
    assert {check.spec.type for check in none} == {ProbeType.NONE}
