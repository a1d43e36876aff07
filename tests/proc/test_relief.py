"""Workers are replaced, become more and fewer, while clients come, talk and stay; nobody notices."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from harness import Lbfast, fd_census, free_port, is_running, real_server, virtual_service, wait_for
from live_world import NAMES, Load, commit, named_servers, text_of, unharmed
from servers import TcpServer, connect, read_line

from lbfast.control.client import Client, ControlError


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers() as running:
        yield running


@pytest.fixture
def port() -> int:
    return free_port()


def config(servers: dict[str, TcpServer], port: int, **top: object) -> str:
    return text_of([virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])], **top)


@pytest.fixture
def lb(servers: dict[str, TcpServer], port: int) -> Iterator[Lbfast]:
    with Lbfast(config(servers, port), allow_stderr=True) as running:
        yield running


def restart(lb: Lbfast, process: str) -> None:
    Client(lb.runtime_dir / "control.sock", timeout=60).call("restart", process=process)


def live(lb: Lbfast, client: str) -> dict[str, tuple[Any, ...]]:
    """Connections of a client by id: what they are, apart from who has them."""
    found = lb.call("connections", service="Symphony", client=client)["connections"]
    return {it["id"]: (it["client_port"], it["real"], datetime.fromisoformat(it["opened"]).timestamp()) for it in found}


def much_like(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """To compare with: the time of the opening is worked out anew at each look, from two clocks."""
    return {id_: (*what, pytest.approx(opened, abs=0.5)) for id_, (*what, opened) in found.items()}


def test_a_worker_is_replaced_and_nobody_notices(lb: Lbfast, port: int) -> None:
    old = lb.child("worker0")
    with connect(port, source="127.9.9.9") as sock, Load(port) as load:
        name = read_line(sock)
        sock.sendall(b"before\n")
        assert read_line(sock) == b"before\n"
        kept = much_like(live(lb, "127.9.9.9"))
        for turn in range(6):
            restart(lb, f"worker {turn % 2}")
        restart(lb, "workers")
        sock.sendall(b"after\n")
        assert read_line(sock) == b"after\n"
        assert live(lb, "127.9.9.9") == kept
        entry = lb.call("persistence_show", service="Symphony", client="127.9.9.9")["entries"][0]
        assert (entry["real"], entry["connections"]) == (name.decode().strip(), 1)
    unharmed(load)
    assert not is_running(old)
    assert lb.child("worker0") != old
    overview = lb.call("overview")["virtual_services"][0]
    wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, what="all counts to be given back")
    assert overview["state"] == "up"
    # Each worker's counters go on across its seats.
    workers = lb.call("statistics")["workers"]
    assert [it["index"] for it in workers] == [0, 1]
    assert sum(it["accepted"] for it in workers) == lb.call("statistics")["virtual_services"][0]["accepted"]


def test_open_and_close_records_match(lb: Lbfast, port: int) -> None:
    with connect(port, source="127.9.9.8") as sock:
        read_line(sock)
        restart(lb, "workers")
    wait_for(lambda: len(of_client(lb, "127.9.9.8")) == 2, what="open and close")
    opened, closed = of_client(lb, "127.9.9.8")
    assert (opened["event"], closed["event"]) == ("open", "close")
    assert opened["id"] == closed["id"]
    assert closed["ended"] == "close"


def of_client(lb: Lbfast, client: str) -> list[dict[str, object]]:
    return [event for event in lb.call("events", limit=1000)["events"] if event.get("client") == client]


def test_the_number_of_workers_changes_live(lb: Lbfast, servers: dict[str, TcpServer], port: int) -> None:
    with Load(port) as load:
        for count in (4, 1, 3, 2):
            report = commit(lb, config(servers, port, workers=count))
            assert [step["kind"] for step in report["steps"]] == ["change_workers"]
            wait_for(
                lambda count=count: worker_names(lb) == {f"worker{n}" for n in range(count)}, what=f"{count} workers"
            )
            assert lb.call("version")["workers"] == count
        seen = load.visits
        wait_for(lambda: load.visits > seen + 20, what="clients to go on")
    unharmed(load)
    assert lb.stderr == ""


def worker_names(lb: Lbfast) -> set[str]:
    return {name.removeprefix("lbfast-") for name in lb.children() if "worker" in name}


def test_other_changes_come_with_the_workers(lb: Lbfast, servers: dict[str, TcpServer], port: int) -> None:
    other = free_port()
    service = virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])
    with Load(port) as load:
        commit(lb, text_of([service | {"ports": f"{port},{other}"}], workers=3))
        with connect(other) as sock:
            assert read_line(sock)
        commit(lb, text_of([service], workers=1, pin_workers=False))
        assert os.sched_getaffinity(lb.child("worker0")) == os.sched_getaffinity(0)
        commit(lb, text_of([service], workers=2))
        with pytest.raises(OSError):
            connect(other)
    unharmed(load)


def test_control_and_health_are_replaced_on_request(lb: Lbfast, port: int) -> None:
    for name in ("control", "health"):
        old = lb.child(name)
        restart(lb, name)
        lb.wait_replaced(name, old)
        wait_for(lambda: lb.call("version"), what="control")
    assert lb.stderr == ""


@pytest.mark.parametrize("process", ["worker 7", "worker", "worker x", "supervisor"])
def test_what_cannot_be_replaced_is_said(lb: Lbfast, process: str) -> None:
    with pytest.raises(ControlError) as refusal:
        restart(lb, process)
    assert process in str(refusal.value)


def test_the_command_line_replaces_a_worker(lb: Lbfast) -> None:
    old = lb.child("worker1")
    assert lb.cli("restart", "worker", "1") == (0, "worker 1: replaced\n", "")
    assert lb.child("worker1") != old
    assert lb.cli("restart", "worker")[0] == 2


@pytest.mark.parametrize("victim", ["old", "new"])
def test_a_worker_killed_while_it_is_replaced(lb: Lbfast, port: int, victim: str) -> None:
    """Only what the dead one had is cut; everything is counted right, and there are two workers again."""
    socks = [connect(port, source=f"127.8.0.{host}") for host in range(1, 101)]
    for sock in socks:
        read_line(sock)
    for _ in range(4):
        before = lb.children()
        order = Client(lb.runtime_dir / "control.sock", timeout=60)
        thread = threading.Thread(target=quietly, args=(order,))
        thread.start()
        known = set(before.values())
        new = wait_for(lambda known=known: set(lb.children().values()) - known, what="a new worker")
        with suppress(ProcessLookupError):  # the old one ends as soon as the new one is ready
            os.kill(before["lbfast-worker0"] if victim == "old" else new.pop(), signal.SIGKILL)
        thread.join(30)
    wait_for(lambda: worker_names(lb) == {"worker0", "worker1"}, what="two workers")
    alive = 0
    for sock in socks:
        try:
            sock.sendall(b"ping\n")
            alive += read_line(sock) == b"ping\n"
        except OSError:
            pass
    real = lb.call("overview")["virtual_services"][0]
    assert real["connections"] == alive
    assert sum(it["connections"] for it in real["real_servers"]) == alive
    entries = lb.call("persistence_show", service="Symphony", client="127.8.0.0/16")["entries"]
    assert sum(entry["connections"] for entry in entries) == alive
    for sock in socks:
        sock.close()


def quietly(client: Client) -> None:
    try:
        client.call("restart", process="worker 0")
    except ControlError:
        pass  # it was not replaced: somebody was killed


def test_nothing_piles_up(lb: Lbfast, port: int) -> None:
    restart(lb, "workers")
    restart(lb, "workers")
    before = census(lb)
    for _ in range(6):
        restart(lb, "workers")
    # A look can meet the control socket's end of the look before it.
    wait_for(lambda: not Counter(census(lb)) - Counter(before), 20, f"descriptors as before: {before}")


def census(lb: Lbfast) -> dict[str, int]:
    """Descriptors of each process once nothing moves; health opens some for each probe."""

    def count() -> dict[str, int]:
        counts = {name: len(fd_census(pid)) for name, pid in lb.children().items() if "health" not in name}
        return counts | {"supervisor": len(fd_census(lb.pid))}

    seen = count()
    while True:
        time.sleep(0.3)  # between two looks
        now = count()
        if now == seen:
            return now
        seen = now
