"""A real server whose cable is pulled: no FIN, no RST, nothing.  In network namespaces."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from harness import Lbfast, real_server, scaled, virtual_service, wait_for
from live_world import commit
from servers import connect, named_server, read_line

from tests.netns.namespaces import inside, ip, joined_pair

pytestmark = pytest.mark.root
HERE, THERE = "lbfault-a", "lbfault-b"
Figure = Callable[[str, str], None]


@contextmanager
def far_server() -> Iterator[int]:
    """An echo server in the other namespace; its port."""
    script = (
        "import socket, threading\n"
        "l = socket.create_server(('192.0.2.2', 0))\n"
        "print(l.getsockname()[1], flush=True)\n"
        "def serve(s):\n"
        "    s.sendall(b'far\\n')\n"
        "    while d := s.recv(4096): s.sendall(d)\n"
        "while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()\n"
    )
    command = ["ip", "netns", "exec", THERE, sys.executable, "-c", script]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()


def test_a_server_that_vanishes_is_given_up_and_its_client_told(tmp_path: Path, figure: Figure) -> None:
    """An idle connection by keepalive, one with bytes under way by TCP_USER_TIMEOUT; new ones go elsewhere."""
    with joined_pair(HERE, THERE), far_server() as port, ExitStack() as stack:
        with inside(HERE):
            near = stack.enter_context(named_server("near", port=port))
        service = virtual_service(
            4443,
            [real_server("Far", port, address="192.0.2.2", weight=256), real_server("Near", port, weight=0)],
            connect_timeout="500ms",
            server_idle_timeout="6s",  # so that the timer that sets keepalive fires soon
            tcp_user_timeout="2s",
            keepalive_idle="1s",
            keepalive_interval="1s",
            keepalive_count=2,
        )
        config = {"workers": 1, "virtual_service": [service]}
        with Lbfast(config, directory=tmp_path, prefix=["ip", "netns", "exec", HERE], allow_stderr=True) as lb:
            with inside(HERE):
                idle = stack.enter_context(connect(4443, source="127.0.64.1"))
                busy = stack.enter_context(connect(4443, source="127.0.64.2"))
            assert {read_line(idle), read_line(busy)} == {b"far\n"}
            wait_for(lambda: _talk(idle, busy) and _with_keepalive() == 2, 40, "keepalive on the server side")
            commit(lb, lb.config_path.read_text().replace('server_idle_timeout = "6s"', 'server_idle_timeout = "12h"'))
            _talk(idle, busy)
            lb.call("weight", service="Symphony", real="Near", weight=256)
            ip("-n", THERE, "link", "set", "eth0", "down")
            begun = time.monotonic()
            busy.sendall(b"is anybody there?\n")
            took = {}
            for name, sock in (("busy", busy), ("idle", idle)):
                sock.settimeout(scaled(60))
                with pytest.raises(ConnectionResetError):
                    assert sock.recv(1) == b"", "?"
                    raise AssertionError("a vanished server became a clean end")
                took[name] = time.monotonic() - begun
            with inside(HERE):
                again = stack.enter_context(connect(4443, source="127.0.64.1"))
            assert read_line(again) == b"near\n"
            assert near.accepted
            ended = wait_for(
                lambda: [it for it in lb.call("events", limit=100)["events"] if it.get("ended") == "dead"],
                10,
                "records",
            )
            assert {it["by"] for it in ended} == {"server"}
            figure(
                "server vanishes without FIN",
                f"RST after {took['busy']:.1f} s with bytes under way (tcp_user_timeout 2 s), "
                f"{took['idle']:.1f} s idle (keepalive 1 s + 2 x 1 s)",
            )


def _talk(*socks: socket.socket) -> bool:
    for sock in socks:
        sock.sendall(b"x\n")
        assert read_line(sock) == b"x\n"
    return True


def _with_keepalive() -> int:
    """Connections to the far server that have a keepalive timer."""
    words = ["ip", "netns", "exec", HERE, "ss", "-Htno", "state", "established", "dst", "192.0.2.2"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.count("timer:(keepalive")
