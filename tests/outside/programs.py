"""Finds programs of the distribution, or skips; runs them as servers that are gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import pytest
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from waiting import scaled

_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/bin", *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True))


def need(name: str, package: str) -> str:
    """The path of a program; the test is skipped when it is missing."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS))
    if found is None:
        pytest.skip(f"{name} is not here (Debian package {package})")
    return found


@contextmanager
def server(command: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    """A program that listens on a port of 127.0.0.1; stopped by SIGTERM, then SIGKILL, with all it started."""
    log = folder / f"{Path(command[0]).name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, start_new_session=True
        )
    try:
        wait_for(lambda: _answers(port) or process.poll() is not None, 15, f"{command[0]} to listen on {port}")
        assert process.poll() is None, f"{command[0]} ended: {log.read_text(errors='replace')}"
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(scaled(10))
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@contextmanager
def behind(ports: Sequence[int], workers: int = 2) -> Iterator[tuple[Lbfast, int]]:
    """lbfast with one virtual service in front of servers on these ports; its port."""
    port = free_port()
    reals = [real_server(f"Server {number}", real) for number, real in enumerate(ports, 1)]
    with Lbfast({"workers": workers, "virtual_service": [virtual_service(port, reals)]}) as lb:
        yield lb, port


def run(*command: str, env: Mapping[str, str] | None = None, text: str | None = None, code: int = 0) -> str:
    """Run a client; its output, stderr behind stdout.  It must end with ``code``."""
    done = subprocess.run(
        command,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | dict(env or {}),
        text=True,
        timeout=scaled(30),
    )
    assert done.returncode == code, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def opened(lb: Lbfast) -> list[int]:
    """Connections that each real server has had."""
    reals = lb.call("statistics")["virtual_services"][0]["real_servers"]
    return [real["opened"] for real in reals]


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter: servers that drop root need it."""
    with tempfile.TemporaryDirectory(prefix="lbfast-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
