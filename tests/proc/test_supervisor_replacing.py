"""Whoever dies is replaced: workers at once and with their queues, control and health, and nobody in a spin."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from servers import TcpServer, connect, echo_server, read_line
from waiting import freeze


@pytest.fixture
def echo() -> Iterator[TcpServer]:
    with echo_server() as server:
        yield server


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def lbfast(echo: TcpServer, port: int) -> Iterator[Lbfast]:
    service = virtual_service(port, [real_server("R1", echo.port)])
    with Lbfast({"workers": 2, "log": {"target": "none"}, "virtual_service": [service]}, allow_stderr=True) as running:
        yield running


def echoes(sock: socket.socket) -> bool:
    sock.sendall(b"hello\n")
    return read_line(sock) == b"hello\n"


def process_events(lbfast: Lbfast) -> str:
    return "\n".join(event["message"] for event in lbfast.call("events")["events"] if event["event"] == "process")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_worker_is_replaced(lbfast: Lbfast, port: int, number: int) -> None:
    old = lbfast.child("worker0")
    os.kill(old, number)
    new = lbfast.wait_replaced("worker0", old)
    for _ in range(16):
        with connect(port) as sock:
            assert echoes(sock)
    wait_for(lambda: f"replaced by pid {new}" in lbfast.stderr, what="the line that is printed after the fork")
    assert f"worker 0 (pid {old})" in lbfast.stderr
    wait_for(lambda: f"worker 0 (pid {old})" in process_events(lbfast), what="the process event")


def test_queued_connections_of_a_killed_worker_are_served(lbfast: Lbfast, port: int) -> None:
    workers = [lbfast.child("worker0"), lbfast.child("worker1")]
    for pid in workers:
        freeze(pid)
    clients = [connect(port) for _ in range(32)]  # in the kernel's queues now
    for sock in clients:
        sock.sendall(b"hello\n")
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    for sock in clients:
        with sock:
            assert read_line(sock) == b"hello\n"


def test_counts_are_right_after_a_worker_was_killed(lbfast: Lbfast, port: int, echo: TcpServer) -> None:
    clients = [connect(port, source=f"127.0.0.{host}") for host in range(10, 26)]
    assert all(echoes(sock) for sock in clients)
    for name in ("worker0", "worker1"):
        old = lbfast.child(name)
        os.kill(old, signal.SIGKILL)
        lbfast.wait_replaced(name, old)
    for sock in clients:
        sock.close()
    real = lbfast.json("overview")["virtual_services"][0]["real_servers"][0]
    assert (real["connections"], real["clients"]) == (0, 16)
    assert all(entry["connections"] == 0 for entry in lbfast.call("persistence_show", service="Symphony")["entries"])
    wait_for(lambda: "connections; they are closed" in process_events(lbfast), what="the process event")
    with connect(port, source="127.0.0.10") as sock:
        assert echoes(sock)


def test_control_is_replaced_and_traffic_does_not_notice(lbfast: Lbfast, port: int) -> None:
    old = lbfast.child("control")
    with connect(port) as sock:
        os.kill(old, signal.SIGKILL)
        assert echoes(sock)
        new = lbfast.wait_replaced("control", old)
        wait_for(lambda: lbfast.call("version"), what="the new control to answer")
        assert echoes(sock)
    wait_for(lambda: f"replaced by pid {new}" in lbfast.stderr, what="the line that is printed after the fork")
    # It serves as soon as it is ready; the supervisor hears that it is, and tells it, a little later.
    wait_for(lambda: "control (pid" in process_events(lbfast), what="the new control to be told of the old one's death")
    assert lbfast.call("version")["pid"] == lbfast.pid


def test_health_is_replaced_and_servers_stay_up(lbfast: Lbfast, port: int) -> None:
    old = lbfast.child("health")
    os.kill(old, signal.SIGKILL)
    lbfast.wait_replaced("health", old)
    with connect(port) as sock:
        assert echoes(sock)
    assert lbfast.json("overview")["virtual_services"][0]["state"] == "up"


def test_worker_that_keeps_dying_is_held_back(lbfast: Lbfast, port: int) -> None:
    pid = lbfast.child("worker0")
    for _ in range(6):
        os.kill(pid, signal.SIGKILL)
        pid = lbfast.wait_replaced("worker0", pid)
    # A worker that was killed before it was ready is held back from its first death on.
    assert lbfast.stderr.count("replaced by") <= 5
    assert "it is started again in 0.1 s" in lbfast.stderr
    with connect(port) as sock:
        assert echoes(sock)


def test_death_while_stopping_does_not_keep_it_from_stopping(lbfast: Lbfast, port: int) -> None:
    with connect(port) as sock:
        assert echoes(sock)
        children = lbfast.children()  # before: a supervisor that has gone has none to be asked for
        lbfast.process.send_signal(signal.SIGTERM)
        for pid in children.values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert lbfast.wait() == 0
