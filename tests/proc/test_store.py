"""Everybody is killed; the service manager has kept sockets and tables, and the next start goes on with them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Lbfast, free_port, is_running, real_server, virtual_service, wait_for
from live_world import NAMES, commit, named_servers, text_of
from servers import TcpServer, connect, read_line
from service_manager import ServiceManager


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers() as running:
        yield running


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path) as running:
        yield running


def text(servers: dict[str, TcpServer], ports: str) -> str:
    service = virtual_service(1, [real_server(name, servers[name].port) for name in NAMES])
    return text_of([service | {"ports": ports}])


def run(manager: ServiceManager, config: str, directory: Path) -> Lbfast:
    directory.mkdir(exist_ok=True)
    directory.chmod(0o711)
    return Lbfast(config, directory=directory, env=manager.env, prefix=manager.prefix, allow_stderr=True)


def wait_kept(manager: ServiceManager, doors: int) -> None:
    """Until the manager has everything: listening sockets are given as the last."""
    wait_for(lambda: len(_doors(manager)) == doors, what=f"{doors} listening sockets to be kept")


def _doors(manager: ServiceManager) -> list[str]:
    return [name for name in list(manager.kept) if name.startswith("door.")]  # a copy: another thread hears more


def kill_all(lb: Lbfast) -> None:
    everybody = [lb.pid, *lb.children().values()]
    for pid in everybody:
        os.kill(pid, signal.SIGKILL)
    lb.process.wait()
    wait_for(lambda: not any(is_running(pid) for pid in everybody), what="all of them to be gone")


def test_everybody_is_killed_and_nobody_is_refused(
    manager: ServiceManager, servers: dict[str, TcpServer], port: int, tmp_path: Path
) -> None:
    first = run(manager, text(servers, str(port)), tmp_path / "x")
    first.start()
    try:
        first.wait_ready()
        homes = {}
        for host in range(1, 21):
            with connect(port, source=f"127.8.1.{host}") as sock:
                homes[host] = read_line(sock)
        open_ones = [connect(port, source=f"127.8.2.{host}") for host in range(1, 11)]
        for sock in open_ones:
            read_line(sock)
        first.call("drain", service="Symphony", real="R2", reason="patching")
        first.call("persistence_pin", service="Symphony", client="10.9.8.7", real="R3")
        accepted = sum(it["accepted"] for it in first.call("statistics")["workers"])
        wait_kept(manager, 2)
        kill_all(first)
        waiting = [connect(port, source=f"127.8.1.{host}") for host in range(1, 21)]  # in the kernel's queue
        with run(manager, text(servers, str(port)), tmp_path / "x") as lb:
            for host, sock in enumerate(waiting, 1):
                assert read_line(sock) == homes[host], "another server"
            for sock in open_ones:
                with pytest.raises(OSError):
                    assert sock.recv(1) == b"", "?"
                    raise ConnectionResetError
            assert sum(it["accepted"] for it in lb.call("statistics")["workers"]) >= accepted + 20
            assert lb.call("persistence_show", service="Symphony", client="10.9.8.7")["entries"][0]["pinned"]
            reals = {it["label"]: it for it in lb.call("overview")["virtual_services"][0]["real_servers"]}
            assert reals["R2"]["admin"] == "drain"
            for sock in [*waiting, *open_ones]:
                sock.close()
            wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, what="counts")
            entries = lb.call("persistence_show", service="Symphony", limit=1000)["entries"]
            assert sum(entry["connections"] for entry in entries) == 0
            wait_for(lambda: any("everybody was killed" in it for it in told(lb)), what="the event")
        wait_for(lambda: not manager.kept, what="the manager to forget everything after a stop")
    finally:
        first.clean_up()


def is_cut(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def told(lb: Lbfast) -> list[str]:
    return [it["message"] for it in lb.call("events", limit=1000)["events"] if it["event"] == "process"]


def test_a_port_that_was_removed_is_kept_by_nobody(
    manager: ServiceManager, servers: dict[str, TcpServer], port: int, tmp_path: Path
) -> None:
    """A copy of a listening socket would take connections that nobody accepts."""
    other = free_port()
    with run(manager, text(servers, f"{port},{other}"), tmp_path / "x") as lb:
        wait_kept(manager, 4)
        copies = [os.dup(manager.kept[name]) for name in _doors(manager) if f".{other}." in name]
        try:
            commit(lb, text(servers, str(port)))
            with pytest.raises(ConnectionRefusedError):
                connect(other)  # although the copies are still open
            wait_for(lambda: not any(f".{other}." in it for it in _doors(manager)), what="the manager to forget them")
        finally:
            for fd in copies:
                os.close(fd)
        commit(lb, text(servers, f"{port},{other}"))
        for _ in range(20):
            with connect(other) as sock:
                assert read_line(sock)


def test_what_cannot_be_used_is_given_up(
    manager: ServiceManager, servers: dict[str, TcpServer], port: int, tmp_path: Path
) -> None:
    """Spoiled memory: told, and everything starts anew on the same port."""
    first = run(manager, text(servers, str(port)), tmp_path / "x")
    first.start()
    try:
        first.wait_ready()
        wait_kept(manager, 2)
        kill_all(first)
        os.pwrite(manager.kept["counters"], b"\0" * 64, 0)
        with run(manager, text(servers, str(port)), tmp_path / "x") as lb:
            assert "starts anew" in lb.stderr
            assert lb.call("version")
            with connect(port) as sock:
                assert read_line(sock)
    finally:
        first.clean_up()


def test_descriptors_for_another_process_are_not_touched(servers: dict[str, TcpServer], port: int) -> None:
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "table"}
    with Lbfast(text(servers, str(port)), env=env) as lb, connect(port) as sock:
        assert read_line(sock)
        assert lb.call("version")
