"""Commits under load: nobody is cut, refused or moved by what does not concern them; refusals change nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Lbfast, fd_census, free_port, real_server, virtual_service, wait_for
from live_world import NAMES, Load, commit, named_servers, services_of, text_of
from servers import TcpServer, connect, read_line

from lbfast.control.client import ControlError, ControlUnavailable


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers((*NAMES, "X")) as running:
        yield running


@pytest.fixture
def port() -> int:
    return free_port()


def reals(servers: dict[str, TcpServer], *names: str, **settings: Any) -> list[dict[str, Any]]:
    return [real_server(name, servers[name].port, **settings) for name in names or NAMES]


@pytest.fixture
def lb(servers: dict[str, TcpServer], port: int) -> Iterator[Lbfast]:
    with Lbfast(text_of([virtual_service(port, reals(servers))]), allow_stderr=True) as running:
        yield running


def meets(port: int, source: str | None = None) -> str:
    with connect(port, source=source) as sock:
        return read_line(sock).decode().strip()


CHECK = {"type": "connect", "interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 2}


def stages(servers: dict[str, TcpServer], port: int, extra: int, other: int) -> list[list[dict[str, Any]]]:
    """Ten configurations, each unlike the one before it; the clients' own three servers are in all of them."""
    base = reals(servers)
    added = [*base, real_server("X", servers["X"].port, weight=0)]
    new_service = virtual_service(extra, reals(servers, "X"), label="Extra")
    two_ports = virtual_service(port, base) | {"ports": f"{port},{other}"}
    return [
        [virtual_service(port, base), new_service],
        [virtual_service(port, added), new_service],
        [virtual_service(port, added, connect_timeout="2s", client_idle_timeout="1h")],
        [two_ports],
        [virtual_service(port, reals(servers, weight=50))],
        [virtual_service(port, base, health_check=CHECK)],
        [virtual_service(port, list(reversed(base)), tcp_keepalive=False)],
        [virtual_service(port, base, max_connections=5_000, drain_policy="new_choice"), new_service],
        [virtual_service(port, added, scheduler="hash", deny=["10.0.0.0/8"]), new_service],
        [virtual_service(port, base)],
    ]


def test_thirty_commits_under_load_harm_nobody(lb: Lbfast, port: int, servers: dict[str, TcpServer]) -> None:
    extra, other = free_port(), free_port()
    before = _held(lb)
    workers = lb.child("worker0"), lb.child("worker1")
    with Load(port) as load:
        wait_for(lambda: load.visits > 50 and load.exchanges > 50, what="the load")
        for turn in range(30):
            services = stages(servers, port, extra, other)[turn % 10]
            result = commit(lb, text_of(services), reason=f"turn {turn}")
            assert result["version"] == turn + 2
            assert result["impact"]["connections_cut"] == 0
            if any(service["label"] == "Extra" for service in services):
                assert meets(extra) == "X"
                wait_for(lambda: services_of(lb)["Extra"]["connections"] == 0, what="the visit to end")
            if "," in services[0]["ports"]:
                assert meets(other) in NAMES
    assert load.failures == []
    assert load.split == {}
    assert load.visits > 300
    assert (lb.child("worker0"), lb.child("worker1")) == workers
    wait_for(lambda: not _surplus(before, _held(lb)), 10, f"descriptors as before: {_surplus(before, _held(lb))}")
    assert lb.stderr == ""


def _held(lb: Lbfast) -> dict[str, Counter[str]]:
    """What each process has open, by kind; the supervisor too."""
    pids = {**lb.children(), "lbfast": lb.pid}
    return {name: Counter(re.sub(r"[\d]+", "N", it) for it in fd_census(pid).values()) for name, pid in pids.items()}


def _surplus(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Descriptors that were not there before; pipes come with load, the file of the kept log with its first record."""
    more = {name: after[name] - before[name] for name in before if name in after}
    return {
        name: left
        for name, found in more.items()
        if (left := Counter({k: v for k, v in found.items() if "pipe" not in k and "/log/" not in k}))
    }


def test_a_taken_port_refuses_the_commit_and_nothing_changes(
    lb: Lbfast, port: int, servers: dict[str, TcpServer]
) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        candidate = [
            virtual_service(port, reals(servers, "R1")),
            virtual_service(free, reals(servers, "X"), label="Free"),
            virtual_service(taken, reals(servers, "X"), label="Taken"),
        ]
        home, descriptors = meets(port, "127.7.0.1"), len(fd_census(lb.pid))
        with pytest.raises(ControlError, match="address already in use by process") as refusal:
            commit(lb, text_of(candidate))
    assert refusal.value.code == "refused"
    assert "test.toml:" in refusal.value.message
    assert services_of(lb).keys() == {"Symphony"}
    assert [real["label"] for real in services_of(lb)["Symphony"]["real_servers"]] == list(NAMES)
    assert lb.call("history")["version"] == 1
    assert meets(port, "127.7.0.1") == home
    assert len(fd_census(lb.pid)) == descriptors
    with pytest.raises(ConnectionRefusedError):
        connect(free)
    assert commit(lb, text_of(candidate[:2]))["version"] == 2
    assert meets(free) == "X"


def test_a_removed_server_is_cut_and_its_clients_move(lb: Lbfast, port: int, servers: dict[str, TcpServer]) -> None:
    clients = {f"127.7.1.{host}": connect(port, source=f"127.7.1.{host}") for host in range(1, 13)}
    homes = {client: read_line(sock).decode().strip() for client, sock in clients.items()}
    of_two = [client for client, home in homes.items() if home == "R2"]
    result = commit(lb, text_of([virtual_service(port, reals(servers, "R1", "R3"))]))
    assert result["impact"]["connections_cut"] == result["impact"]["clients_moved"] == len(of_two) > 0
    for client, sock in clients.items():
        with sock:
            sock.sendall(b"x\n") if client not in of_two else None
            if client in of_two:
                assert is_cut(sock)
            else:
                assert read_line(sock) == b"x\n"
                assert meets(port, client) == homes[client]
    assert {meets(port, client) for client in of_two} <= {"R1", "R3"}


def is_cut(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_server_removed_gently_keeps_its_connections(lb: Lbfast, port: int, servers: dict[str, TcpServer]) -> None:
    with connect(port, source="127.7.2.1") as sock:
        home = read_line(sock).decode().strip()
        rest = [name for name in NAMES if name != home]
        result = commit(lb, text_of([virtual_service(port, reals(servers, *rest))]), removed="drain")
        assert (result["impact"]["connections_cut"], result["impact"]["connections_left"]) == (0, 1)
        for _ in range(5):
            sock.sendall(b"on and on\n")
            assert read_line(sock) == b"on and on\n"
        assert meets(port, "127.7.2.1") in rest


def test_a_server_removed_for_a_time_is_cut_then_whoever_died_since(
    lb: Lbfast, port: int, servers: dict[str, TcpServer]
) -> None:
    with connect(port, source="127.7.2.9") as sock:
        home = read_line(sock).decode().strip()
        text = text_of([virtual_service(port, reals(servers, *(name for name in NAMES if name != home)))])
        with pytest.raises(ControlError, match="cut_after: expected removed = drain"):
            commit(lb, text, cut_after=3)
        file = lb.directory / "smaller.toml"
        file.write_text(text)
        code, _, err = lb.cli("commit", str(file), "--removed", "a while")
        assert code == 2
        assert "--removed takes cut, drain or a time" in err
        code, out, err = lb.cli("commit", str(file), "--removed", "4s")
        assert (code, err) == (0, "")
        assert "1 connection of removed servers may end by themselves" in out
        old = lb.child("control")
        os.kill(old, signal.SIGKILL)
        lb.wait_replaced("control", old)
        sock.sendall(b"still here\n")
        assert read_line(sock) == b"still here\n"
        with pytest.raises(ConnectionResetError):
            assert sock.recv(1) == b""
            raise AssertionError("a cut became a clean end")
        wait_for(lambda: lb.call("version"), what="control")
        told = [str(it.get("message")) for it in lb.call("events", limit=1000)["events"]]
        assert any("its time is up: 1 connections are cut" in message for message in told)
        wait_for(lambda: not (lb.state_dir / "removals.json").exists(), what="the deadline to be forgotten")


def test_drains_and_weights_stand_across_commits(lb: Lbfast, port: int, servers: dict[str, TcpServer]) -> None:
    lb.call("drain", service="Symphony", real="R1", reason="patching")
    lb.call("weight", service="Symphony", real="R2", weight=7)
    commit(lb, text_of([virtual_service(port, reals(servers, slow_start="1s"), retries=1)]))
    found = {real["label"]: real for real in services_of(lb)["Symphony"]["real_servers"]}
    assert (found["R1"]["admin"], found["R2"]["weight"], found["R3"]["weight"]) == ("drain", 7, 100)
    assert "patching" in found["R1"]["reason"]
    assert {meets(port, f"127.7.3.{host}") for host in range(1, 9)} <= {"R2", "R3"}


def test_new_servers_get_no_client_before_their_first_verdict(
    lb: Lbfast, port: int, servers: dict[str, TcpServer]
) -> None:
    """All servers are exchanged at once: the new ones have been probed when the old ones go."""
    with Load(port, long=1) as load:
        wait_for(lambda: load.visits > 20, what="the load")
        fresh = [real_server("N", servers["X"].port)]
        commit(lb, text_of([virtual_service(port, fresh, health_check=CHECK)]))
    assert [it for it in load.failures if "long" not in it and "got b''" not in it and "Reset" not in it] == []
    assert meets(port) == "X"


@pytest.mark.parametrize("name", ["worker0", "control", "health"])
def test_whoever_is_replaced_after_a_commit_has_the_new_configuration(
    lb: Lbfast, port: int, servers: dict[str, TcpServer], name: str
) -> None:
    extra = free_port()
    new = virtual_service(extra, reals(servers, "X"), label="Extra")
    commit(lb, text_of([virtual_service(port, reals(servers, "R1")), new]))
    old = lb.child(name)
    os.kill(old, signal.SIGKILL)
    lb.wait_replaced(name, old)
    wait_for(lambda: lb.call("version"), what="control")
    for host in range(1, 9):
        assert meets(extra, f"127.7.4.{host}") == "X"
        assert meets(port, f"127.7.4.{host}") == "R1"
    assert services_of(lb).keys() == {"Symphony", "Extra"}
    assert lb.call("history")["version"] == 2
    assert commit(lb, text_of([new]))["version"] == 3
    assert meets(extra) == "X"
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_control_killed_in_the_middle_leaves_the_old_or_the_new(
    lb: Lbfast, port: int, servers: dict[str, TcpServer]
) -> None:
    extra = free_port()
    alone = [virtual_service(port, reals(servers))]
    both = [*alone, virtual_service(extra, reals(servers, "X"), label="Extra")]
    kills = 0
    with Load(port) as load:
        wait_for(lambda: load.visits > 20, what="the load")
        for turn in range(12):
            services = both if turn % 2 == 0 else alone
            pid = lb.child("control")
            kills += _commit_and_kill(lb, text_of(services), pid, delay=turn * 0.012)
            lb.wait_replaced("control", pid)
            wait_for(lambda: lb.call("version"), what="control")
            labels = set(services_of(lb))
            assert labels in ({"Symphony"}, {"Symphony", "Extra"})
            assert _listens(extra) == ("Extra" in labels)
            history = lb.call("history")
            assert history["version"] == max(version["number"] for version in history["versions"])
    assert kills > 0, "no commit was interrupted"
    assert load.failures == []
    assert load.split == {}
    wait_for(lambda: _commits(lb, text_of(both)), what="the commit before to be finished")
    assert meets(extra) == "X"


def _commits(lb: Lbfast, text: str) -> bool:
    """False while the supervisor still finishes the commit of a control process that was killed."""
    try:
        commit(lb, text)
    except ControlError as error:
        if error.message != "the commit before is not finished yet; try again":
            raise
        return False
    return True


def _commit_and_kill(lb: Lbfast, text: str, pid: int, delay: float) -> int:
    """1 when the commit was interrupted."""
    from threading import Timer

    timer = Timer(delay, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        _commits(lb, text)
    except (ControlUnavailable, OSError):
        return 1
    finally:
        timer.join()
    return 0


def _listens(port: int) -> bool:
    try:
        with connect(port) as sock:
            return read_line(sock) == b"X\n"
    except OSError:
        return False
