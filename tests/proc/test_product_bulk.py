"""Much data through a virtual service: nothing is lost, nothing is cut, a slow reader holds up only itself."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import trustme
from bulk_client import BLOCK, MIB, echo, echo_on, hash_all
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from servers import TcpServer, connect, echo_server, read_line
from tls_world import TlsWorld


def test_24_times_16_mib_come_back_after_half_close() -> None:
    """Everything is sent, then FIN; what comes back after it must have the same hash."""
    with echo_server() as one, echo_server() as two, Lbfast(_config(port := free_port(), one, two)) as lb:
        with ThreadPoolExecutor(24) as pool:
            results = list(pool.map(lambda number: echo(port, f"127.0.60.{number + 1}", 16), range(24)))
        assert all(received == sent for sent, received in results)
        statistics = lb.call("statistics")
        assert sum(worker["spliced_bytes"] for worker in statistics["workers"]) > 24 * 16 * MIB, "bulk was copied"
        reals = statistics["virtual_services"][0]["real_servers"]
        wait_for(lambda: _bytes(lb, "bytes_out") == 24 * 16 * MIB, 5, "all bytes to be counted")
        assert _bytes(lb, "bytes_in") == 24 * 16 * MIB
        # Not 12 and 12: a transfer may end before the last client comes.
        opened = [real["opened"] for real in reals]
        assert sum(opened) == 24
        assert min(opened) >= 8, opened


def test_large_https_downloads_arrive_whole(ca: trustme.CA) -> None:
    """Six at the same time, 24 MiB each, under TLS: any lost or doubled byte breaks the record."""
    with TlsWorld(ca) as world, ExitStack() as stack:
        servers = [stack.enter_context(_download_server(ca, 24)) for _ in range(2)]
        port = free_port()
        stack.enter_context(Lbfast(_config(port, *servers)))
        expected = hashlib.sha256(BLOCK * 24).hexdigest()

        def fetch(number: int) -> str:
            with connect(port, source=f"127.0.61.{number}", timeout=30) as raw:
                with world.context.wrap_socket(raw, server_hostname="localhost") as sock:
                    sock.sendall(b"GET\n")
                    return hash_all(sock)

        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(fetch, range(1, 7))) == {expected}


def test_a_slow_reader_loses_nothing_holds_up_nobody_and_costs_no_memory() -> None:
    """A client that stops reading 64 MiB stops its server, not lbfast; later it gets every byte."""
    with _plain_download_server(64) as server, Lbfast(_config(port := free_port(), server)) as lb:
        before = _rss(lb)
        with connect(port, source="127.0.62.1", timeout=30) as slow:
            slow.sendall(b"GET\n")
            stalled = wait_for(lambda: _is_stalled(lb), 10, "the flow to stop")
            assert stalled < 40 * MIB
            with connect(port, source="127.0.62.2", timeout=30) as quick:
                quick.sendall(b"GET\n")
                assert hash_all(quick) == hashlib.sha256(BLOCK * 64).hexdigest()
            assert _rss(lb) - before < 4 * MIB
            assert hash_all(slow) == hashlib.sha256(BLOCK * 64).hexdigest()


def test_both_directions_at_the_same_time_are_independent() -> None:
    """A server that answers only after the client's FIN, and one that sends while it receives."""
    with echo_server() as server, Lbfast(_config(port := free_port(), server)):
        with connect(port, timeout=30) as sock:
            sock.sendall(b"line\n")
            assert read_line(sock) == b"line\n"
            sent, received = echo_on(sock, 8)
            assert received == sent


def _config(port: int, *servers: TcpServer) -> dict[str, object]:
    reals = [real_server(f"Server {number}", server.port) for number, server in enumerate(servers)]
    return {"workers": 2, "virtual_service": [virtual_service(port, reals)]}


def _plain_download_server(mib: int) -> TcpServer:
    def handle(sock: socket.socket) -> None:
        sock.recv(100)
        for _ in range(mib):
            sock.sendall(BLOCK)

    return TcpServer(handle)


def _download_server(ca: trustme.CA, mib: int) -> TcpServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)

    def handle(raw: socket.socket) -> None:
        with context.wrap_socket(raw.dup(), server_side=True) as sock:
            sock.recv(100)
            for _ in range(mib):
                sock.sendall(BLOCK)
            sock.unwrap()

    return TcpServer(handle)


def _bytes(lb: Lbfast, key: str) -> int:
    return sum(real[key] for real in lb.call("statistics")["virtual_services"][0]["real_servers"])


def _is_stalled(lb: Lbfast) -> int:
    """Bytes that have gone to the slow client, once it gets no more."""
    live = lb.call("connections", service="Symphony")["connections"]
    return int(live[0]["bytes_out"]) if live and live[0]["bytes_out"] and live[0]["idle"] > 0.3 else 0


def _rss(lb: Lbfast) -> int:
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in lb.children().values()]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")
