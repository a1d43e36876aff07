"""Runs the proofs of the main job on real processes and prints one line with the figure for each.

.venv/bin/python bench/proof.py [NAME ...]      names: sixty races bulk killed dead blackhole leak
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "proc")]

import trustme  # noqa: E402
from bulk_client import MIB, echo  # noqa: E402
from footprint import Footprint, footprint  # noqa: E402
from harness import Lbfast, free_port, real_server, virtual_service, wait_for  # noqa: E402
from load_clients import Load  # noqa: E402
from servers import TcpServer, connect, echo_server, named_server, read_line  # noqa: E402
from storm import Storm, StormServer  # noqa: E402
from tls_world import TlsWorld, homes, sources, visit  # noqa: E402

STORM = 200_000
DETOURS = 100  # clients whose server is gone


def main(names: Sequence[str]) -> int:
    """Run them all or those named; 1 when one of them failed."""
    proofs: dict[str, Callable[[], str]] = {
        "sixty": prove_sixty,
        "races": prove_races,
        "bulk": prove_bulk,
        "killed": prove_killed,
        "dead": prove_dead,
        "blackhole": prove_blackhole,
        "leak": prove_leak,
    }
    failed = 0
    for name in names or proofs:
        started = time.monotonic()
        try:
            figure = f"ok    {proofs[name]()}"
        except AssertionError as error:
            figure = f"FAIL  {error}"
            failed = 1
        print(f"{name:10} {figure}  [{time.monotonic() - started:.1f} s]", flush=True)
    return failed


def prove_sixty() -> str:
    with TlsWorld(trustme.CA()) as world:
        port = free_port()
        with Lbfast({"workers": 2, "virtual_service": [world.service(port)]}):
            met = visit(port, world.context, sources(60) * 5)
        shares = _shares(homes(met))
        assert len(shares) == 3, f"only {len(shares)} servers were used"
        return f"60 HTTPS clients x 5 connections: 0 split, clients on the three servers: {shares}"


def prove_races() -> str:
    with TlsWorld(trustme.CA()) as world:
        port = free_port()
        with Lbfast({"workers": 2, "virtual_service": [world.service(port)]}) as lb:
            met = visit(port, world.context, [client for client in sources(150) for _ in range(6)])
            workers = [worker["accepted"] for worker in lb.call("statistics")["workers"]]
        shares = _shares(homes(met))
        return f"150 new HTTPS clients x 6 simultaneous first connections: 0 split, {shares}; by worker: {workers}"


def prove_bulk() -> str:
    with echo_server() as one, echo_server() as two:
        port = free_port()
        with Lbfast(_config(port, {"One": one, "Two": two})):
            started = time.monotonic()
            with ThreadPoolExecutor(24) as pool:
                hashes = list(pool.map(lambda number: echo(port, f"127.0.60.{number}", 16), range(1, 25)))
            seconds = time.monotonic() - started
        wrong = sum(sent != received for sent, received in hashes)
        assert wrong == 0, f"{wrong} of 24 hashes are wrong"
        rate = 2 * 24 * 16 * MIB / seconds / 1e6
        return f"24 x 16 MiB echoed after half-close: 24 hashes right, {rate:.0f} MB/s both ways"


def prove_killed() -> str:
    """A worker killed under load, three times; what clients that were not on it notice."""
    with _named() as servers:
        port = free_port()
        clients = [f"127.0.50.{host}" for host in range(1, 33)]
        with Lbfast(_config(port, servers), allow_stderr=True) as lb, Load(port, clients) as load:
            load.wait_more(500)
            replaced, ready = [], []
            for _ in range(3):
                old, killed = lb.child("worker0"), time.monotonic()
                os.kill(old, signal.SIGKILL)
                lb.wait_replaced("worker0", old)
                replaced.append(time.monotonic() - killed)
                new = lb.child("worker0")
                wait_for(partial(_is_looping, lb, new), 10, "the new worker's loop")
                ready.append(time.monotonic() - killed)
                load.wait_more(500)
        split = sum(len(met) > 1 for met in load.met.values())
    assert not load.refused, f"{len(load.refused)} new connections were refused"
    assert not split, f"{split} clients were split over servers"
    return (
        f"worker killed 3 times under load: {load.done} connections well, 0 new ones refused or lost, "
        f"{len(load.cut)} cut with their worker, 0 clients split; forked again after "
        f"{_ms(max(replaced))} ms, in its loop after {_ms(max(ready))} ms at most"
    )


def prove_dead() -> str:
    """Clients return to a server that refuses connections; nothing but the connect tells lbfast so."""
    with _detour(passive_fall=0) as (port, lost, server):
        server.stop()
        holder = _hold(server.port)
        times = _first_bytes(port, lost)
        holder.close()
    return f"redispatch from a dead server (refused): {_percentiles(times)} ms from connect to the first byte"


def prove_blackhole() -> str:
    """The server's SYN queue is full: nobody answers.  First all clients at once, then again when it counts as down."""
    with _detour() as (port, lost, server):
        server.stop()
        with _blackhole(server.port):
            first = _first_bytes(port, lost, together=True)
            later = _first_bytes(port, lost)
    return (
        f"redispatch from a black-holed server, connect_timeout 4 s: {_percentiles(first)} ms; "
        f"after that: {_percentiles(later)} ms"
    )


def prove_leak() -> str:
    with ExitStack() as stack:
        servers = {f"Server {number}": stack.enter_context(StormServer()) for number in range(2)}
        port = free_port()
        lb = stack.enter_context(Lbfast(_config(port, servers)))
        storm = Storm(port)
        failed = storm.run(10_000)
        before, started = footprint(lb), time.monotonic()
        failed += storm.run(STORM, timeout=150)
        rate = STORM / (time.monotonic() - started)
        wait_for(lambda: footprint(lb).connections == 0, 10, "all connections to end")
        wait_for(lambda: footprint(lb).descriptors == before.descriptors, 10, "descriptors to go")
        after = footprint(lb)
    assert failed == 0, f"{failed} connections failed"
    grown = sum(after.memory.values()) - sum(before.memory.values())
    assert grown < 2 * MIB, f"memory grew by {grown} bytes"
    return f"{STORM} connections ({rate:.0f}/s, 0 failed): before {_told(before)}; after {_told(after)}"


# --- stages ---------------------------------------------------------------------------------------


@contextmanager
def _named() -> Iterator[dict[str, TcpServer]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(named_server(name)) for name in ("One", "Two", "Three")}


@contextmanager
def _detour(**settings: Any) -> Iterator[tuple[int, list[str], TcpServer]]:
    """lbfast without probes in front of two servers, and the clients whose home is the second."""
    with named_server("one") as one, named_server("two") as two:
        port = free_port()
        with Lbfast(_config(port, {"One": one, "Two": two}, **settings)) as lb:
            clients = [f"127.0.{70 + number // 200}.{number % 200 + 1}" for number in range(DETOURS)]
            lb.call("drain", service="Symphony", real="One")
            for client in clients:
                with connect(port, source=client) as sock:
                    assert read_line(sock) == b"two\n"
            lb.call("online", service="Symphony", real="One")
            yield port, clients, two


def _config(port: int, servers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    reals = [real_server(name, server.port) for name, server in servers.items()]
    service = virtual_service(port, reals, **settings)
    return {"workers": 2, "log": {"target": "none"}, "virtual_service": [service]}


def _hold(port: int, backlog: int = -1) -> socket.socket:
    """A bound port that refuses connects, or, with a backlog, listens and never accepts."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    if backlog >= 0:
        sock.listen(backlog)
    return sock


@contextmanager
def _blackhole(port: int) -> Iterator[None]:
    """A port whose queue is full: the kernel drops every SYN, as a firewall or a hung machine does."""
    with ExitStack() as stack:
        stack.enter_context(_hold(port, 0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.3)
        try:
            probe.connect(("127.0.0.1", port))
        except TimeoutError:
            yield
        else:
            raise AssertionError("the port still answers")


# --- figures --------------------------------------------------------------------------------------


def _first_bytes(port: int, clients: Sequence[str], *, together: bool = False) -> list[float]:
    """Milliseconds from connect to the first byte of the other server, sorted."""

    def once(client: str) -> float:
        if together:
            barrier.wait()
        started = time.monotonic()
        with connect(port, source=client, timeout=30) as sock:
            assert read_line(sock) == b"one\n", f"{client} was not served by the other server"
        return (time.monotonic() - started) * 1000

    barrier = threading.Barrier(len(clients))
    with ThreadPoolExecutor(len(clients) if together else 1) as pool:
        return sorted(pool.map(once, clients))


def _percentiles(times: Sequence[float]) -> str:
    p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, max {times[-1]:.1f} (n={len(times)})"


def _is_looping(lb: Lbfast, pid: int) -> bool:
    """Whether worker 0 is this process, and turns."""
    worker = lb.call("statistics")["workers"][0]
    return bool(worker["pid"] == pid and worker["loops"])


def _shares(home: dict[str, str]) -> list[int]:
    return [list(home.values()).count(name) for name in sorted(set(home.values()))]


def _told(found: Footprint) -> str:
    memory = sum(found.memory.values()) / MIB
    descriptors = sum(found.descriptors.values())
    return (
        f"{memory:.1f} MiB private and {found.shared / MIB:.1f} MiB shared, {descriptors} fds, {found.pipes} pipes, "
        f"{found.entries} entries, {found.holds} holds"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
