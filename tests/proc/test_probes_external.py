"""Probes by script: arguments, exit, output, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from probe_servers import Server, answering, page, probe, refused_port, serving
from waiting import TIMEOUT_SCALE

from lbfast.health.outcome import ProbeResult
from lbfast.health.probes import Prober
from lbfast.health.spec import ProbeSpec, ProbeType


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


def write_script(tmp_path: Path, body: str, head: str = "#!/bin/sh") -> str:
    path = tmp_path / "check.sh"
    path.write_text(f"{head}\n{textwrap.dedent(body)}\n")
    path.chmod(0o755)
    return str(path)


def run_script(script: str, **settings: Any) -> ProbeResult:
    return probe(ProbeType.EXTERNAL, 8_042, script=script, vip="192.0.2.1", vport=443, **settings)


def test_script_gets_four_arguments_and_a_clean_world(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = write_script(tmp_path, f'echo "$#|$*|$PWD|$(cat)" > {seen}; env > {seen}.env; echo noise; exit 0')
    result = run_script(script)
    assert (result.ok, result.reason) == (True, "script exit 0")
    assert seen.read_text() == "4|192.0.2.1 443 127.0.0.1 8042|/|\n"
    names = {line.partition("=")[0] for line in Path(f"{seen}.env").read_text().splitlines()}
    assert names <= {"PATH", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo '  no route to PACS' >&2; echo second >&2; exit 3", "script exit 3: no route to PACS"),
        ("exit 1", "script exit 1"),
        ("kill -SEGV $$", "script killed by SIGSEGV"),
        ("printf '\\033[31mred\\a\\n' >&2; exit 2", "script exit 2: [31mred"),
        ("printf '\\377\\376' >&2; exit 2", "script exit 2: ��"),
    ],
)
def test_script_failures(tmp_path: Path, body: str, reason: str) -> None:
    result = run_script(write_script(tmp_path, body))
    assert (result.ok, result.reason) == (False, reason)


def test_script_that_cannot_run(tmp_path: Path) -> None:
    result = run_script(str(tmp_path / "missing"))
    assert not result.ok
    assert "No such file or directory (it should be an executable file" in result.reason
    plain = tmp_path / "plain"
    plain.write_text("exit 0")
    assert "Permission denied" in run_script(str(plain)).reason
    plain.chmod(0o755)
    assert "Exec format error" in run_script(str(plain)).reason


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid: int) -> None:
    limit = time.monotonic() + 10 * TIMEOUT_SCALE
    while is_alive(pid):
        assert time.monotonic() < limit, f"process {pid} is still there"
        time.sleep(0.005)


@pytest.mark.parametrize("ending", ["wait", "exit 0"])
def test_script_and_its_children_are_killed(tmp_path: Path, ending: str) -> None:
    """At the timeout, and also what is left behind by a script that ends."""
    pids = tmp_path / "pids"
    script = write_script(tmp_path, f"trap '' TERM\nsleep 1000 &\necho $$ $! > {pids}\n{ending}")
    # Before it the script must have begun, or ended.
    timeout_ms = int((3_000 if ending == "wait" else 20_000) * TIMEOUT_SCALE)
    result = run_script(script, timeout_ms=timeout_ms)
    if ending == "wait":
        assert result.reason == f"script: no answer within {timeout_ms} ms"
    assert result.ok == (ending == "exit 0")
    for pid in map(int, pids.read_text().split()):
        wait_gone(pid)


def test_script_with_endless_output(tmp_path: Path) -> None:
    result = run_script(write_script(tmp_path, "yes to all >&2"), timeout_ms=int(600 * TIMEOUT_SCALE))
    assert result.reason == f"script: no answer within {int(600 * TIMEOUT_SCALE)} ms"
    result = run_script(write_script(tmp_path, "head -c 300000 /dev/zero | tr '\\0' e >&2; exit 4"))
    assert result.reason.startswith("script exit 4: eeee")
    assert len(result.reason) < 200


def test_no_descriptor_or_process_is_left(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(answering(page()))
    script = write_script(tmp_path, "exit 0")

    async def round_(prober: Prober) -> None:
        await prober.probe(ProbeSpec(ProbeType.HTTP, "127.0.0.1", server.port))
        await prober.probe(ProbeSpec(ProbeType.TLS, "127.0.0.1", refused_port()))
        await prober.probe(ProbeSpec(ProbeType.EXTERNAL, "127.0.0.1", 1, script=script))
        await prober.probe(ProbeSpec(ProbeType.EXTERNAL, "127.0.0.1", 1, script="/nonexistent"))

    async def run() -> tuple[int, int]:
        prober = Prober()
        await round_(prober)
        before = len([fd for fd in os.listdir("/proc/self/fd") if not is_socket_of(server, fd)])
        for _ in range(5):
            await round_(prober)
        return before, len([fd for fd in os.listdir("/proc/self/fd") if not is_socket_of(server, fd)])

    def is_socket_of(_server: Server, fd: str) -> bool:
        """The server's own accepted sockets come and go in its threads."""
        try:
            return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") and int(fd) != server._listener.fileno()
        except OSError:
            return True

    before, after = asyncio.run(run())
    assert before == after
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
