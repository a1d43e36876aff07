"""The life of a running lbfast: READY, graceful and sudden stops, and what it refuses to start with."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Lbfast, fd_census, free_port, is_running, real_server, virtual_service, wait_for
from servers import TcpServer, connect, echo_server, read_line
from waiting import freeze


@pytest.fixture
def echo() -> Iterator[TcpServer]:
    with echo_server() as server:
        yield server


def config(port: int, echo: TcpServer, **top: Any) -> dict[str, Any]:
    service = virtual_service(port, [real_server("R1", echo.port)])
    return {"workers": 2, "log": {"target": "none"}} | top | {"virtual_service": [service]}


def echoes(sock: socket.socket) -> bool:
    sock.sendall(b"hello\n")
    return read_line(sock) == b"hello\n"


def test_ready_means_that_everything_answers(echo: TcpServer) -> None:
    port = free_port()
    with Lbfast(config(port, echo)) as lbfast:
        assert [line for line in lbfast.lines if line.startswith("READY")] == [lbfast.ready_line]
        with connect(port) as sock:
            assert echoes(sock)
        assert lbfast.call("version")["pid"] == lbfast.pid
        assert set(lbfast.children()) == {"lbfast-worker0", "lbfast-worker1", "lbfast-control", "lbfast-health"}


def test_only_workers_come_after_others(echo: TcpServer) -> None:
    """SCHED_BATCH: woken, a worker interrupts nobody.  What must be punctual (probes, heartbeats) stays as it is."""
    with Lbfast(config(free_port(), echo)) as lbfast:
        policies = {name: os.sched_getscheduler(pid) for name, pid in lbfast.children().items()}
        assert policies == {
            "lbfast-worker0": os.SCHED_BATCH,
            "lbfast-worker1": os.SCHED_BATCH,
            "lbfast-control": os.SCHED_OTHER,
            "lbfast-health": os.SCHED_OTHER,
        }


def test_children_hold_nothing_of_each_other(echo: TcpServer) -> None:
    ports = (free_port(), free_port())
    services = [virtual_service(port, [real_server("R1", echo.port)], label=f"S{port}") for port in ports]
    with Lbfast({"workers": 2, "log": {"target": "none"}, "virtual_service": services}) as lbfast:
        ours = {name for name in fd_census(lbfast.pid).values() if name.startswith("socket:")}
        held = {
            name: {what for what in fd_census(pid).values() if what.startswith("socket:")} & ours
            for name, pid in lbfast.children().items()
        }
        # Of the supervisor's own sockets: a worker has its two listeners, its inbox and the sending ends of both.
        assert {name: len(socks) for name, socks in held.items()} == {
            "lbfast-worker0": 5,
            "lbfast-worker1": 5,
            "lbfast-control": 0,
            "lbfast-health": 0,
        }
        assert len(held["lbfast-worker0"] & held["lbfast-worker1"]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_leaves_nothing(echo: TcpServer, number: int) -> None:
    port = free_port()
    with Lbfast(config(port, echo)) as lbfast:
        lbfast.process.send_signal(number)
        assert lbfast.wait() == 0
        assert list(lbfast.runtime_dir.iterdir()) == []
        assert not (lbfast.state_dir / "lbfast.lock").exists()
        with pytest.raises(ConnectionRefusedError):
            connect(port)


def test_stop_lets_answers_out_and_then_ends_both_sides(echo: TcpServer) -> None:
    port = free_port()
    with Lbfast(config(port, echo)) as lbfast, connect(port) as idle, connect(port) as busy:
        assert echoes(idle)
        assert echoes(busy)
        started = time.monotonic()
        lbfast.process.send_signal(signal.SIGTERM)
        assert_served_for_the_grace(busy, started)
        assert lbfast.wait() == 0  # a worker that did not end by itself would be killed, and told by the code
        assert ended(idle)
        wait_for(lambda: echo.open == 0, what="the real server's side to be ended")


def assert_served_for_the_grace(sock: socket.socket, since: float) -> None:
    """Established connections have a moment to finish: a least time, which no slow machine makes shorter."""
    try:
        while echoes(sock):
            pass
    except ConnectionError:
        pass
    assert time.monotonic() - since > 0.95, "it was cut before the grace of a graceful stop was over"


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_ctrl_c_in_a_terminal_reaches_all_and_stops_in_order(echo: TcpServer) -> None:
    port = free_port()
    with Lbfast(config(port, echo)) as lbfast, connect(port) as sock:
        assert echoes(sock)
        started = time.monotonic()
        os.killpg(lbfast.pid, signal.SIGINT)
        assert_served_for_the_grace(sock, started)
        assert lbfast.wait() == 0


def test_second_signal_ends_at_once(echo: TcpServer) -> None:
    port = free_port()
    with Lbfast(config(port, echo)) as lbfast, connect(port) as sock:
        assert echoes(sock)
        worker = lbfast.child("worker0")
        freeze(worker)  # it cannot stop by itself
        lbfast.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(lbfast, port), what="the stop to begin")
        lbfast.process.send_signal(signal.SIGTERM)
        # After the first signal alone a worker that cannot stop is killed, later, and the exit code is 1.
        assert lbfast.wait() == 0
        assert list(lbfast.runtime_dir.iterdir()) == []


def refuses(lbfast: Lbfast, port: int) -> bool:
    """Whether the other worker has left already."""
    return "lbfast-worker1" not in lbfast.children()


def test_another_signal_does_no_harm(echo: TcpServer) -> None:
    port = free_port()
    with Lbfast(config(port, echo), allow_stderr=True) as lbfast:
        lbfast.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "ignored" in lbfast.stderr, what="the answer on stderr")
        with connect(port) as sock:
            assert echoes(sock)


def test_second_instance_is_refused_with_the_pid_of_the_first(echo: TcpServer) -> None:
    with Lbfast(config(free_port(), echo)) as first:
        code, out, err = first.cli("run", "--config", str(first.config_path))
        assert (code, out) == (1, "")
        assert f"process {first.pid}" in err
        assert "LBFAST_RUNTIME_DIR" in err
        assert first.call("version")["pid"] == first.pid


def test_two_run_side_by_side(echo: TcpServer) -> None:
    ports = free_port(), free_port()
    with Lbfast(config(ports[0], echo)), Lbfast(config(ports[1], echo)):
        for port in ports:
            with connect(port) as sock:
                assert echoes(sock)


@pytest.mark.parametrize("reuse_port", [False, True])
def test_port_in_use_is_told_and_nothing_is_left(echo: TcpServer, reuse_port: bool) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        lbfast = Lbfast(config(stranger.getsockname()[1], echo))
        try:
            lbfast.start()
            assert lbfast.wait() == 2
            row = next(n for n, text in enumerate(lbfast.config_path.read_text().splitlines(), 1) if "ports" in text)
            assert lbfast.stderr.startswith(f'{lbfast.config_path}:{row}: virtual_service[0] "Symphony" . ports: found')
            assert f"already in use by process {os.getpid()} (" in lbfast.stderr
            assert lbfast.lines == []
            assert list(lbfast.runtime_dir.iterdir()) == []
            lbfast.stop(2)
        finally:
            lbfast.clean_up()


def test_every_problem_of_a_bad_file_and_nothing_started() -> None:
    lbfast = Lbfast("wokers = 2\n[[virtual_service]]\nlabel = 7\n")
    try:
        lbfast.start()
        assert lbfast.wait() == 2
        assert ":1: wokers: found an unknown key, expected" in lbfast.stderr
        assert len(lbfast.stderr.splitlines()) >= 3
        assert not lbfast.runtime_dir.exists()
    finally:
        lbfast.clean_up()


def test_address_of_nowhere_is_told_with_the_subnets(echo: TcpServer) -> None:
    service = virtual_service(free_port(), [real_server("R1", echo.port)], address="203.0.113.77")
    lbfast = Lbfast({"virtual_service": [service]})
    try:
        lbfast.start()
        assert lbfast.wait() == 2
        assert 'virtual_service[0] "Symphony" . address: found "203.0.113.77"' in lbfast.stderr
        assert "neither on this machine nor in the subnet" in lbfast.stderr
    finally:
        lbfast.clean_up()


def test_directory_that_cannot_be_used(tmp_path: Path, echo: TcpServer) -> None:
    (tmp_path / "file").write_text("")
    lbfast = Lbfast(config(free_port(), echo), env={"LBFAST_RUNTIME_DIR": str(tmp_path / "file" / "run")})
    try:
        lbfast.start()
        assert lbfast.wait() == 1
        assert "LBFAST_RUNTIME_DIR" in lbfast.stderr
        assert len(lbfast.stderr.splitlines()) == 1
    finally:
        lbfast.clean_up()


def test_ready_waits_for_the_first_verdicts(echo: TcpServer) -> None:
    port = free_port()
    check = {"type": "connect", "interval": "500ms", "timeout": "500ms", "rise": 2, "fall": 2}
    service = virtual_service(port, [real_server("R1", echo.port)], health_check=check)
    with Lbfast({"log": {"target": "none"}, "virtual_service": [service]}) as lbfast:
        assert echo.accepted >= 1
        overview = lbfast.json("overview")["virtual_services"]
        assert [real["state"] for real in overview[0]["real_servers"]] == ["up"]


def test_killed_supervisor_stops_no_traffic_and_the_next_one_starts(echo: TcpServer) -> None:
    port = free_port()
    first = Lbfast(config(port, echo))
    try:
        first.start()
        first.wait_ready()
        orphans = first.children()
        with connect(port) as sock:
            assert echoes(sock)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            assert echoes(sock), "established connections go on"
        for _ in range(8):
            with connect(port) as sock:
                assert echoes(sock), "new ones are served"
        assert all(is_running(pid) for pid in orphans.values())
        assert idle(orphans), "without a supervisor they must not spin"
        with Lbfast(config(port, echo), directory=first.directory):
            wait_for(lambda: not any(is_running(pid) for pid in orphans.values()), what="the old processes to end")
            with connect(port) as sock:
                assert echoes(sock)
    finally:
        first.clean_up()


def idle(pids: dict[str, int]) -> bool:
    """Whether no process uses more than a fraction of a core over a quarter of a second."""
    from harness import cpu_seconds

    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > 0.25, what="a stretch of time to measure")
    return all(cpu_seconds(pid) - before[name] < 0.15 for name, pid in pids.items())
