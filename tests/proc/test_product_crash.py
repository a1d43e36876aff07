"""Processes of lbfast killed under load: who notices, what is lost, and that everything is counted right afterwards."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import Lbfast, free_port, is_running, json_lines, real_server, virtual_service, wait_for
from load_clients import Load
from servers import DeafPort, TcpServer, connect, named_server, read_line
from waiting import freeze

from lbfast.control.client import ControlUnavailable
from lbfast.control.protocol import ControlError

NAMES = ("One", "Two", "Three")
# Nobody stands still for two intervals; a single probe of a health process that did is late, and failed.
QUICK_CHECK = {"type": "connect", "interval": "1s", "timeout": "1s", "rise": 1, "fall": 2}
CROWD = [f"127.0.50.{host}" for host in range(1, 25)]


@dataclass
class Stage:
    """A running lbfast with three servers that say their names."""

    lb: Lbfast
    port: int
    servers: dict[str, TcpServer]
    log_file: Path

    def overview(self) -> dict[str, Any]:
        service: dict[str, Any] = self.lb.call("overview")["virtual_services"][0]
        return service

    def entries(self) -> dict[str, dict[str, Any]]:
        shown = self.lb.call("persistence_show", service="Symphony")["entries"]
        return {entry["client"]: entry for entry in shown}

    def log(self) -> list[dict[str, Any]]:
        return json_lines(self.log_file)

    def died(self) -> list[dict[str, Any]]:
        """The records of the connections that went with their worker."""
        return [record for record in self.log() if record.get("ended") == "worker_died"]

    def told(self, words: str) -> str:
        """The process event with these words."""
        return next((record["message"] for record in self.log() if words in record.get("message", "")), "")


@contextmanager
def staged(directory: Path, **settings: Any) -> Iterator[Stage]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(named_server(name)) for name in NAMES}
        port = free_port()
        reals = [real_server(name, server.port) for name, server in servers.items()]
        config = {
            "workers": 2,
            "log": {"target": "file", "file": str(directory / "connections.log"), "rate_limit": 0},
            "virtual_service": [virtual_service(port, reals, **settings)],
        }
        lb = stack.enter_context(Lbfast(config, directory=directory, allow_stderr=True))
        yield Stage(lb, port, servers, directory / "connections.log")


def test_a_killed_worker_takes_only_its_own_connections_with_it(tmp_path: Path) -> None:
    with staged(tmp_path) as stage, ExitStack() as stack:
        long_lived = [_Held(stack, stage.port, f"127.0.51.{host}") for host in range(1, 25)]
        by_port = {
            it["client_port"]: it["worker"] for it in stage.lb.call("connections", service="Symphony")["connections"]
        }
        with Load(stage.port, CROWD) as load:
            load.wait_more(200)
            old = stage.lb.child("worker0")
            os.kill(old, signal.SIGKILL)
            stage.lb.wait_replaced("worker0", old)
            load.wait_more(300)
            wait_for(lambda: _serves(stage, 0), 10, "the new worker to take connections")
            load.wait_more(300)
        assert load.refused == []
        lost = int(wait_for(lambda: stage.told(f"worker 0 (pid {old}) had"), 10, "the count").split()[5])
        died = wait_for(lambda: found if len(found := stage.died()) >= lost else [], 10, "their close records")
        assert len(died) == lost
        ports = {record["client_port"] for record in died}
        assert {failure.port for failure in load.cut} <= ports, load.cut
        survivors = [it for it in long_lived if by_port[it.port] == 1]
        gone = [it for it in long_lived if by_port[it.port] == 0]
        assert survivors
        assert gone
        assert all(it.is_alive() for it in survivors)
        assert not any(it.is_alive() for it in gone)
        assert {it.port for it in gone} <= ports
        assert len({record["id"] for record in died}) == len(died)
        _assert_counted_right(stage, survivors)
        assert all(len(servers) == 1 for servers in load.met.values()), "a client was split over servers"


def test_connections_queued_for_a_killed_worker_are_served_by_its_replacement(tmp_path: Path) -> None:
    """The worker is frozen first, so that its queue fills; nobody in it may be lost."""
    with staged(tmp_path) as stage, ExitStack() as stack:
        old = stage.lb.child("worker0")
        freeze(old)
        clients = [stack.enter_context(connect(stage.port, source=f"127.0.52.{host}")) for host in range(1, 61)]
        wait_for(lambda: stage.overview()["connections"] >= 60 // 5, 10, "the other worker to serve its share")
        served_by_other = stage.overview()["connections"]
        assert served_by_other < 60, "nobody is queued for the frozen worker"
        os.kill(old, signal.SIGKILL)
        names = [read_line(client).decode().strip() for client in clients]
        assert set(names) == set(NAMES)
        assert stage.overview()["connections"] == 60
        assert stage.died() == []
        assert {entry["connections"] for entry in stage.entries().values()} == {1}


def test_control_and_health_die_without_a_client_noticing(tmp_path: Path) -> None:
    dead = DeafPort()
    with staged(tmp_path, health_check=QUICK_CHECK) as stage, Load(stage.port, CROWD) as load:
        stage.servers["Two"].stop()
        wait_for(lambda: _states(stage)["Two"] == "down", 10, "the stopped server to be down")
        load.wait_more(50)
        failures = len(load.failures)
        since = _since(stage, "Two")
        for name in ("health", "control", "health", "control"):
            old = stage.lb.child(name)
            os.kill(old, signal.SIGKILL)
            stage.lb.wait_replaced(name, old)
            load.wait_more(100)
            states = wait_for(lambda: _ask(stage), 10, "an answer")
            assert states == {"One": "up", "Two": "down", "Three": "up"}, f"after {name} was killed"
        assert len(load.failures) == failures
        # Each control process works it out anew, from two clocks.
        assert abs(_since(stage, "Two") - since).total_seconds() < 0.5, "a new verdict"
        wait_for(lambda: stage.lb.call("health", service="Symphony", real="One")["results"], 10, "new probe results")
    dead.stop()
    assert all(set(servers) <= set(NAMES) for servers in load.met.values())


def test_everything_but_the_supervisor_killed_at_once_comes_back(tmp_path: Path) -> None:
    with staged(tmp_path) as stage, Load(stage.port, CROWD) as load:
        load.wait_more(100)
        children = stage.lb.children()
        assert len(children) == 4
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)
        for name, pid in children.items():
            stage.lb.wait_replaced(name.removeprefix("lbfast-"), pid)
        load.wait_more(300)
        assert load.refused == []
        assert len(load.cut) <= len(CROWD), "more connections were cut than there were"
        wait_for(lambda: _ask(stage), 10, "an answer")
    assert all(len(servers) == 1 for servers in load.met.values()), load.met


def test_workers_serve_on_without_a_supervisor_and_a_new_one_takes_their_place(tmp_path: Path) -> None:
    """The new supervisor takes connections over, keeps what operators decided, and says what it did."""
    with ExitStack() as stack:
        server = stack.enter_context(named_server("One"))
        port = free_port()
        config = {"workers": 2, "virtual_service": [virtual_service(port, [real_server("One", server.port)])]}
        first = Lbfast(config, directory=tmp_path, allow_stderr=True)
        stack.callback(first.clean_up)
        first.start()
        first.wait_ready()
        first.call("weight", service="Symphony", real="One", weight=17)
        held = _Held(stack, port, "127.0.53.1")
        children = first.children()
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        assert held.is_alive()
        with Load(port, CROWD[:8]) as load:
            load.wait_more(200)
        assert load.failures == []
        assert all(is_running(pid) for pid in children.values())
        wait_for(lambda: first.call("overview")["virtual_services"][0]["connections"] == 1, 5, "the load to be gone")
        with Lbfast(config, directory=tmp_path, allow_stderr=True) as second:
            wait_for(lambda: not any(is_running(pid) for pid in children.values()), what="the old processes to end")
            assert held.is_alive()
            told = [it["message"] for it in second.call("events", limit=1000)["events"] if it["event"] == "process"]
            assert any("took over the workers of a killed supervisor" in message for message in told)
            assert second.call("overview")["virtual_services"][0]["real_servers"][0]["weight"] == 17
            with connect(port) as sock:
                assert read_line(sock) == b"One\n"


class _Held:
    """A connection that stays open."""

    def __init__(self, stack: ExitStack, port: int, source: str) -> None:
        self.sock: socket.socket = stack.enter_context(connect(port, source=source))
        self.source = source
        self.port: int = self.sock.getsockname()[1]
        self.name = read_line(self.sock).decode().strip()

    def is_alive(self) -> bool:
        try:
            self.sock.sendall(b"still there?\n")
            return read_line(self.sock) == b"still there?\n"
        except OSError:
            return False


def _serves(stage: Stage, worker: int) -> bool:
    live = stage.lb.call("connections", service="Symphony")["connections"]
    return any(it["worker"] == worker for it in live)


def _states(stage: Stage) -> dict[str, str]:
    return {real["label"]: real["state"] for real in stage.overview()["real_servers"]}


def _since(stage: Stage, real: str) -> datetime:
    return datetime.fromisoformat(stage.lb.call("health", service="Symphony", real=real)["since"])


def _ask(stage: Stage) -> dict[str, str]:
    try:
        return _states(stage)
    except (ControlError, ControlUnavailable):
        return {}


def _assert_counted_right(stage: Stage, survivors: list[_Held]) -> None:
    """Counts, holds and entries: exactly those of the survivors, and then none."""
    wait_for(lambda: stage.overview()["connections"] == len(survivors), 10, "only the survivors to be counted")
    at = {name: sum(it.name == name for it in survivors) for name in NAMES}
    assert {real["label"]: real["connections"] for real in stage.overview()["real_servers"]} == at
    entries = stage.entries()
    held = {client: entry["connections"] for client, entry in entries.items() if entry["connections"]}
    assert held == {it.source: 1 for it in survivors}
    assert all(entries[it.source]["real"] == it.name for it in survivors)
    assert {entry["state"] for entry in entries.values()} == {"bound"}
    assert set(entries) == set(CROWD) | {f"127.0.51.{host}" for host in range(1, 25)}
    for it in survivors:
        it.sock.close()
    wait_for(lambda: stage.overview()["connections"] == 0, 10, "no connection to be counted")
    assert {real["connections"] for real in stage.overview()["real_servers"]} == {0}
    assert {entry["connections"] for entry in stage.entries().values()} == {0}
    statistics = stage.lb.call("statistics")
    assert [worker["connections"] for worker in statistics["workers"]] == [0, 0]
    assert statistics["virtual_services"][0]["connections_by_worker"] == [0, 0]
    assert [real["connections"] for real in statistics["virtual_services"][0]["real_servers"]] == [0, 0, 0]
