"""A supervisor is killed; the next one takes sockets, memory and connections from the workers that still serve."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Lbfast, free_port, is_running, real_server, virtual_service, wait_for
from live_world import NAMES, Load, commit, named_servers, text_of
from servers import TcpServer, connect, read_line
from service_manager import ServiceManager


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers() as running:
        yield running


@pytest.fixture
def port() -> int:
    return free_port()


def service(servers: dict[str, TcpServer], port: int) -> dict[str, object]:
    return virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])


@pytest.fixture
def killed(servers: dict[str, TcpServer], port: int) -> Iterator[Lbfast]:
    """A running lbfast, to be killed by the test; whatever is left is ended."""
    lb = Lbfast(text_of([service(servers, port)]), allow_stderr=True)
    lb.start()
    try:
        lb.wait_ready()
        yield lb
    finally:
        lb.clean_up()


def kill(lb: Lbfast) -> dict[str, int]:
    """The supervisor alone; the processes that it leaves."""
    left = lb.children()
    lb.process.kill()
    lb.process.wait()
    return left


def next_one(lb: Lbfast, text: str | None = None) -> Lbfast:
    return Lbfast(text or lb.config_path.read_text(), directory=lb.directory, allow_stderr=True)


def test_connections_go_on_under_the_next_supervisor(killed: Lbfast, port: int) -> None:
    with connect(port, source="127.9.9.9") as sock, Load(port) as load:
        name = read_line(sock)
        killed.call("drain", service="Symphony", real="R2", reason="patching")
        killed.call("persistence_pin", service="Symphony", client="10.9.8.7", real="R3")
        old = kill(killed)
        with next_one(killed) as lb:
            sock.sendall(b"after\n")
            assert read_line(sock) == b"after\n"
            entry = lb.call("persistence_show", service="Symphony", client="127.9.9.9")["entries"][0]
            assert (entry["real"], entry["connections"]) == (name.decode().strip(), 1)
            assert lb.call("persistence_show", service="Symphony", client="10.9.8.7")["entries"][0]["pinned"]
            reals = {it["label"]: it for it in lb.call("overview")["virtual_services"][0]["real_servers"]}
            assert (reals["R2"]["admin"], reals["R1"]["state"]) == ("drain", "up")
            wait_for(lambda: not any(is_running(pid) for pid in old.values()), what="the old processes to end")
            assert set(lb.children()) == {"lbfast-worker0", "lbfast-worker1", "lbfast-control", "lbfast-health"}
            seen = load.visits
            wait_for(lambda: load.visits > seen + 10, what="new clients")
            assert load.failures == []
            assert load.split == {}
            sock.close()
            load.__exit__(None, None, None)
            wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, what="counts")
    assert sorted(path.name for path in killed.runtime_dir.iterdir()) == []


def test_a_worker_that_died_meanwhile_is_made_good(killed: Lbfast, port: int) -> None:
    socks = [connect(port, source=f"127.8.0.{host}") for host in range(1, 41)]
    for sock in socks:
        read_line(sock)
    old = kill(killed)
    os.kill(old["lbfast-worker0"], signal.SIGKILL)
    wait_for(lambda: not is_running(old["lbfast-worker0"]), what="worker 0 to be gone")
    with next_one(killed) as lb:
        alive = 0
        for sock in socks:
            try:
                sock.sendall(b"ping\n")
                alive += read_line(sock) == b"ping\n"
            except OSError:
                pass
        assert 0 < alive < 40
        assert lb.call("overview")["virtual_services"][0]["connections"] == alive
        entries = lb.call("persistence_show", service="Symphony", client="127.8.0.0/16")["entries"]
        assert sum(entry["connections"] for entry in entries) == alive
        for _ in range(20):
            with connect(port) as sock:
                assert read_line(sock)
        for sock in socks:
            sock.close()


def test_what_operators_were_told_before_is_not_told_again(killed: Lbfast) -> None:
    kill(killed)
    second = next_one(killed)
    second.start()
    try:
        second.wait_ready()
        wait_for(lambda: takeovers(second), what="the word of the first take-over")
        kill(second)
        with next_one(killed) as third:
            wait_for(lambda: takeovers(third), what="the word of the second take-over")
            assert len(takeovers(third)) == 1
    finally:
        second.clean_up()


def takeovers(lb: Lbfast) -> list[str]:
    return told(lb, "took over the workers")


def told(lb: Lbfast, words: str) -> list[str]:
    events = lb.call("events", limit=1000)["events"]
    return [it["message"] for it in events if words in it.get("message", "")]


def test_the_file_that_is_given_counts(killed: Lbfast, servers: dict[str, TcpServer], port: int) -> None:
    other = free_port()
    with connect(port) as sock:
        read_line(sock)
        kill(killed)
        with next_one(killed, text_of([service(servers, port) | {"ports": f"{port},{other}"}])) as lb:
            wait_for(lambda: lb.call("history")["version"] == 2, what="the commit of the file")
            with connect(other) as new:
                assert read_line(new)
            sock.sendall(b"still here\n")
            assert read_line(sock) == b"still here\n"


def test_what_was_committed_goes_on_if_the_file_has_not_been_edited(
    killed: Lbfast, servers: dict[str, TcpServer], port: int
) -> None:
    other = service(servers, port) | {"retries": 1}
    assert commit(killed, text_of([other]))["version"] == 2
    kill(killed)
    with next_one(killed) as lb:
        wait_for(lambda: told(lb, "version 2 runs, as before"), what="the word that the commit stands")
        assert commit(lb, text_of([other | {"retries": 2}]))["version"] == 3
        assert [it["reason"] for it in lb.call("history")["versions"]][-1] == "given at start"


def test_a_file_that_cannot_be_used_leaves_everything_as_it_is(killed: Lbfast, port: int) -> None:
    with connect(port) as sock:
        read_line(sock)
        old = kill(killed)
        following = next_one(killed, "workers = 0\n")
        following.start()
        try:
            assert following.wait() == 2
            sock.sendall(b"still here\n")
            assert read_line(sock) == b"still here\n"
            assert all(is_running(pid) for pid in old.values())
        finally:
            following.clean_up()


def test_a_stranger_gets_nothing(killed: Lbfast, port: int) -> None:
    """While its supervisor lives a worker does not answer at all."""
    path = next(Path(killed.runtime_dir).glob("worker*.sock"))
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(0.5)
        sock.connect(str(path))
        with pytest.raises(TimeoutError):
            sock.recv(100)


def test_the_service_manager_is_told(servers: dict[str, TcpServer], port: int, tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        env = manager.env | {"WATCHDOG_USEC": "200000"}
        with Lbfast(text_of([service(servers, port)]), env=env):
            wait_for(lambda: {"READY=1", "WATCHDOG=1"} <= set(manager.said), what="READY and a sign of life")
            assert "STOPPING=1" not in manager.said
        wait_for(lambda: "STOPPING=1" in manager.said, what="the word that it stops")
