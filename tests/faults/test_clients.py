"""Clients in masses: slow ones that hold connections, and floods against the limits; normal ones beside them."""

from __future__ import annotations

import asyncio
import errno
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from faults_world import Held, timed, world
from harness import Lbfast, free_port, real_server, scaled, virtual_service, wait_for
from load_clients import Load

SLOW = 5_000
CROWD = [f"127.0.65.{host}" for host in range(1, 9)]
Figure = Callable[[str, str], None]


class _Echo(asyncio.Protocol):
    """Says its name, then echoes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"Big\n")

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@contextmanager
def big_server() -> Iterator[int]:
    """One thread for thousands of connections; its port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(_Echo, "127.0.0.1", 0, backlog=SLOW))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


def crowd(stack: ExitStack, port: int, count: int, network: str) -> list[socket.socket]:
    """Connections that are begun, from 250 addresses."""
    socks = []
    for number in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.bind((f"{network}.{number % 250 + 1}", 0))
        assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
        socks.append(sock)
    return socks


def read_some(socks: list[socket.socket], done: Callable[[bytes], bool], what: str) -> None:
    """Until each has said what it should."""
    got = {sock.fileno(): b"" for sock in socks}
    by_fd = {sock.fileno(): sock for sock in socks}
    poller = select.poll()
    for sock in socks:
        poller.register(sock, select.POLLIN)

    def step() -> bool:
        for fd, _ in poller.poll(100):
            got[fd] += by_fd[fd].recv(4096)
            assert got[fd], f"a connection ended instead of {what}"
            if done(got[fd]):
                poller.unregister(fd)
                del got[fd]
        return not got

    wait_for(step, 60, what)


def test_five_thousand_slow_clients_beside_normal_ones(tmp_path: Path, figure: Figure) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with big_server() as server, ExitStack() as stack:
        port = free_port()
        config = {
            "workers": 2,
            "log": {"target": "none"},
            "virtual_service": [virtual_service(port, [real_server("Big", server)], max_connections=8_000)],
        }
        with Lbfast(config, directory=tmp_path, allow_stderr=True) as lb:
            with Load(port, CROWD) as load:
                _, before = timed(lambda: load.wait_more(300))
            slow = crowd(stack, port, SLOW, "127.0.66")
            read_some(slow, lambda said: said == b"Big\n", "the server's name")
            for sock in slow:
                sock.send(b"G")
            with Load(port, CROWD) as load:
                _, beside = timed(lambda: load.wait_more(300, timeout=60))
            assert load.failures == []
            read_some(slow, lambda said: said == b"G", "the first byte of a request that never ends")
            for sock in slow:
                sock.send(b"E")
            read_some(slow, lambda said: said == b"E", "the second one")
            statistics = lb.call("statistics")
            assert statistics["virtual_services"][0]["connections"] == SLOW
            assert sum(worker["blocks"] for worker in statistics["workers"]) == 0
            figure(
                "5,000 slow clients",
                f"0 failed beside them; 300 normal connections in {before:.2f} s before, {beside:.2f} s beside",
            )
            stack.close()
            wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, 60, "all to be gone")


def test_a_flood_from_one_source_meets_its_limit_and_others_do_not(tmp_path: Path, figure: Figure) -> None:
    with world(tmp_path, client_max_connections=20) as stage, ExitStack() as stack:
        flood = [stack.enter_context(socket.socket()) for _ in range(600)]
        for sock in flood:
            sock.settimeout(scaled(10))
            sock.bind(("127.0.67.1", 0))
            assert sock.connect_ex(("127.0.0.1", stage.port)) in (0, errno.ECONNRESET)
        with Load(stage.port, CROWD) as load:
            load.wait_more(200)
        assert load.failures == []
        counts = stage.lb.call("statistics")["virtual_services"][0]
        wait_for(lambda: len(stage.ended("client_limit")) == 580, 20, "a record of each refusal")
        assert counts["client_limited"] == 580
        assert {record["client"] for record in stage.ended("client_limit")} == {"127.0.67.1"}
        figure("flood of 600 from one source", "limit 20: 580 refused with RST and a record, 0 of others failed")


def test_a_flood_from_many_waits_in_the_kernel_where_it_is_seen(tmp_path: Path, figure: Figure) -> None:
    """At its limit a service lets clients wait; how many wait is in the statistics; who is let in is served."""
    with world(tmp_path, max_connections=50, at_limit="queue") as stage, ExitStack() as stack:
        before = stage.lb.call("statistics")["virtual_services"][0]["backlog"]
        assert before["queued"] == 0
        assert before["limit"] > 1_000
        held = [Held(stack, stage.port, f"127.0.68.{host}") for host in range(1, 41)]
        flood = crowd(stack, stage.port, 400, "127.0.69")

        def waiting() -> int:
            found: int = stage.lb.call("statistics")["virtual_services"][0]["backlog"]["queued"]
            return found

        seen = wait_for(lambda: count if (count := waiting()) >= 340 else 0, 20, "the flood to be seen waiting")
        assert stage.service()["connections"] <= 50 + 2
        assert all(it.is_alive() for it in held), "those who were in suffered"
        code, out, _ = stage.lb.cli("statistics")
        assert code == 0
        assert "waiting to be accepted" in out
        for sock in flood:
            sock.close()
        for it in held[:20]:
            it.sock.close()
        again = wait_for(lambda: Held(stack, stage.port, "127.0.68.200"), 20, "the next one to be served")
        assert again.name
        wait_for(lambda: waiting() == 0, 20, "the queue to be empty")
        figure("flood of 400 from many, limit 50", f"{seen} seen waiting, 0 of the 40 inside lost, empty afterwards")
