"""Real servers that misbehave: what the client sees, what the operator sees, how long it takes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from faults_world import Held, timed, world
from harness import wait_for
from servers import TcpServer, connect, named_server, read_line, reset, resetting_server, silent_server

Figure = Callable[[str, str], None]


def test_one_accepts_and_never_answers(tmp_path: Path, figure: Figure) -> None:
    """The idle timeout ends it, with FIN to both: nothing was cut off.  Nobody else waits meanwhile."""
    with silent_server() as dumb, world(tmp_path, {"One": dumb}, client_idle_timeout="2s") as stage:
        with connect(stage.port) as sock:
            sock.sendall(b"hello?\n")
            end, took = timed(lambda: sock.recv(1))
            assert end == b""
        record = wait_for(lambda: stage.ended("client_idle"), 10, "its record")[0]
        assert (record["by"], record["real"]) == ("lbfast", "One")
        assert (record["bytes_in"], record["bytes_out"]) == (7, 0)
        wait_for(lambda: dumb.open == 0, 10, "the server side to be closed")
        figure("server accepts, never answers", f"client_idle_timeout 2 s: FIN after {took:.1f} s")


def test_one_answers_byte_by_byte(tmp_path: Path, figure: Figure) -> None:
    """Bytes arrive as they are said, not when a buffer is full, and others do not wait for them."""
    text, go = b"slow but complete\n", threading.Semaphore(0)

    def handle(sock: socket.socket) -> None:
        for byte in text:
            go.acquire()
            sock.sendall(bytes([byte]))
        sock.recv(1)

    with TcpServer(handle) as slow, named_server("Quick") as quick, world(tmp_path, {"S": slow, "Q": quick}) as stage:
        with ExitStack() as stack:
            first = stack.enter_context(connect(stage.port, source="127.0.63.1"))
            second = stack.enter_context(connect(stage.port, source="127.0.63.2"))
            wait_for(lambda: slow.accepted and quick.accepted, 10, "one client on each")
            client = first if slow.peers and _is_for(stage, "127.0.63.1", "S") else second
            other = second if client is first else first
            assert read_line(other) == b"Quick\n"
            latencies = []
            for byte in text:
                begun = time.monotonic()
                go.release()
                assert client.recv(10) == bytes([byte])
                latencies.append(time.monotonic() - begun)
                other.sendall(b"x\n")
                assert read_line(other) == b"x\n"
        figure("server answers byte by byte", f"each byte passed on at once, at most {max(latencies) * 1000:.1f} ms")


def _is_for(stage: object, client: str, real: str) -> bool:
    entries = stage.lb.call("persistence_show", service="Symphony", client=client)["entries"]  # type: ignore[attr-defined]
    return bool(entries) and entries[0]["real"] == real


def test_one_resets_at_once(tmp_path: Path, figure: Figure) -> None:
    with resetting_server() as rude, world(tmp_path, {"One": rude}) as stage:
        for turn in range(20):
            try:  # the reset may be here before connect has looked
                with connect(stage.port, source=f"127.0.63.{turn + 10}") as sock:
                    assert sock.recv(1) != b"", "a reset became a clean end"
            except ConnectionResetError:
                pass
        records = wait_for(lambda: found if len(found := stage.ended("reset")) == 20 else [], 10, "their records")
        assert {record["by"] for record in records} == {"server"}
        assert stage.service()["connections"] == 0
        figure("server resets at once", "RST to the client 20 of 20 times, 0 clean ends")


def test_all_of_them_refuse_and_come_back(tmp_path: Path, figure: Figure) -> None:
    """Every attempt is told; the client gets RST, not silence; back with the first server that listens again."""
    with ExitStack() as stack:
        servers = {name: named_server(name) for name in ("One", "Two")}
        stage = stack.enter_context(world(tmp_path, servers, retries=1))
        ports = {name: server.port for name, server in servers.items()}
        for server in servers.values():
            server.stop()
        begun = time.monotonic()
        # The RST may come before this process has seen that it is connected.
        with suppress(ConnectionResetError), connect(stage.port) as sock:
            assert sock.recv(1) != b"", "no server, but a clean end"
        took = time.monotonic() - begun
        assert wait_for(lambda: stage.ended("connect"), 10, "its record")
        back = stack.enter_context(named_server("Two", port=ports["Two"]))
        assert Held(stack, stage.port, "127.0.63.50").name == "Two"
        assert back.accepted
        figure("all servers refuse", f"RST after 2 attempts, {took:.2f} s; served again with the first one back")
        stack.pop_all().close()


def test_reset_is_what_the_helper_says() -> None:
    """The tests above rest on it."""
    with named_server("X") as server, connect(server.port) as sock:
        read_line(sock)
        reset(sock)
        wait_for(lambda: server.open == 0, 10, "the server to notice")
