"""Accept without descriptors: no spin, recovery, the established unharmed; other errors of accept; a full slab."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from data_plane import DataPlane, RealPort
from waiting import cpu_seconds, wait_for

from lbfast.model.state import EventKind


def few_descriptors() -> None:
    """Leave room for 8 connections of two sockets each, in a worker that is being started."""
    limit, free = 3, 0
    while free < 17:  # one goes to epoll; the pipe that says "ready" will be closed
        target = Path(f"/proc/self/fd/{limit}")
        free += not target.exists() or os.readlink(target).startswith("pipe:")
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def test_out_of_descriptors_then_back() -> None:
    with RealPort() as real, DataPlane([real], prepare=few_descriptors, max_pipes=0) as plane:
        pairs = [plane.pair(f"127.0.0.{n + 1}") for n in range(8)]
        late = [plane.connect(f"127.0.1.{n + 1}") for n in range(6)]
        wait_for(lambda: plane.total("no_descriptors") > 0)
        start = time.monotonic()
        loops, cpu = plane.total("loops"), cpu_seconds(plane.pids[0])
        count = plane.total("accept_errors")
        wait_for(lambda: plane.total("accept_errors") >= count + 10, what="ten rests of the listener")
        turned, used = plane.total("loops") - loops, cpu_seconds(plane.pids[0]) - cpu
        passed = time.monotonic() - start
        # A rest takes 20 ms, looked at every 10: a spin would be thousands of turns.
        assert turned < 500 * passed
        assert used < 0.25 * passed
        for client, server in pairs:
            client.sendall(b"still here")
            assert server.recv(20) == b"still here"
        for client, server in pairs[:4]:
            client.close()
            server.close()
        served = [real.accept() for _ in range(4)]
        assert len(served) == 4
        for client, server in pairs[4:]:
            server.sendall(b"and now")
            assert client.recv(20) == b"and now"
        for sock in late:
            sock.close()


def injected(plane: DataPlane, rule: str) -> subprocess.Popen[str]:
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("needs strace")
    command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4", "-e", rule, "-p", str(plane.pids[0])]
    process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE)

    def attached() -> bool:
        with open(f"/proc/{plane.pids[0]}/status") as status:
            return f"TracerPid:\t{process.pid}\n" in status.read()

    try:
        wait_for(lambda: attached() or process.poll() is not None, 5, "strace to attach")
        if process.poll() is not None:
            pytest.skip("strace may not trace here")
    except BaseException:
        process.kill()
        raise
    return process


ERRORS = ["ECONNABORTED", "EPROTO", "ENETDOWN", "EHOSTUNREACH", "EPERM", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]


@pytest.mark.parametrize("error", ERRORS)
def test_errors_of_accept_are_not_fatal(error: str) -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        tracer = injected(plane, f"inject=accept4:error={error}:when=1..3")
        try:
            client, server = plane.pair()
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
        finally:
            tracer.terminate()
            tracer.communicate()
        assert plane.total("accept_errors") == 3
        assert plane.total("no_memory") == (3 if error in ("ENOBUFS", "ENOMEM") else 0)
        assert plane.total("no_descriptors") == (3 if error in ("EMFILE", "ENFILE") else 0)


def test_a_full_slab_refuses_and_counts() -> None:
    with RealPort() as real, DataPlane([real], slab=2) as plane:
        pairs = [plane.pair(), plane.pair()]
        assert plane.is_refused()
        assert plane.connections == 2
        pairs[0][0].close()
        pairs[0][1].close()
        plane.wait_events(kind=EventKind.CLOSE)
        client, server = plane.pair()
        client.sendall(b"x")
        assert server.recv(1) == b"x"


def test_a_client_that_never_speaks_is_connected_all_the_same() -> None:
    """Servers that speak first (SSH, SMTP, MySQL): accept does not wait for data."""
    with RealPort() as real, DataPlane([real]) as plane:
        client, server = plane.pair()
        server.sendall(b"220 ready")
        assert client.recv(20) == b"220 ready"


@pytest.mark.parametrize(
    ("lists", "denied"),
    [
        ({"deny": ["127.0.0.8/31"]}, True),
        ({"deny": ["127.0.0.10/31"]}, False),
        ({"allow": ["127.0.0.8/31"]}, False),
        ({"allow": ["127.0.0.0/29"]}, True),
        ({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.9/32"]}, True),
    ],
)
def test_allow_and_deny(lists: dict[str, list[str]], denied: bool) -> None:
    with RealPort() as real, DataPlane([real], **lists) as plane:
        if denied:
            assert plane.is_refused("127.0.0.9")
            assert plane.counters.service(0)["denied"] == 1
            assert not real.is_called()
        else:
            client, server = plane.pair("127.0.0.9")
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            assert plane.counters.service(0)["denied"] == 0


def test_lists_of_ipv6() -> None:
    with RealPort() as real, DataPlane([real], address="::1", deny=["::/64"]) as plane:
        assert plane.is_refused()
        plane.change(deny=["2001:db8::/32", "10.0.0.0/8"])
        plane.pair()
        assert isinstance(real, RealPort)
        assert socket.has_ipv6
