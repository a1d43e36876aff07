"""Starts and stops the demo's child processes: the web servers and lbfast itself."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from lbfast.cli.clean import clean, quote
from lbfast.cli.demo_certs import write_certificate
from lbfast.cli.errors import Refused

_READY_WITHIN = 60.0
_STOP_WITHIN = 15.0
_PR_SET_PDEATHSIG = 1

Child = subprocess.Popen[str]


def start_server(stack: ExitStack, name: str, folder: Path) -> Child:
    """A web server process of its own, so that it can be killed; the stack will stop it."""
    certificate, key = write_certificate(name, folder)
    command = [sys.executable, "-m", "lbfast.cli.demo_servers", name, str(certificate), str(key)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
    stack.callback(_stop_server, child)
    return child


def port_of(name: str, child: Child) -> int:
    """The port that a demo server has bound."""
    assert child.stdout is not None
    first = child.stdout.readline()
    if not first.startswith("PORT "):
        raise Refused(f"the demo server {quote(name)} did not start (exit code {child.wait()})")
    return int(first.split()[1])


def _stop_server(child: Child) -> None:
    if child.stdin is not None:
        child.stdin.close()  # its sign to end
    if child.poll() is None:
        child.send_signal(signal.SIGCONT)  # the reader may have stopped it
    _reap(child, 5.0)


def start_balancer(stack: ExitStack, config: Path) -> Child:
    """`lbfast run` in a process group of its own; the stack will stop it, and so does the death of the demo."""
    command = [sys.executable, "-m", "lbfast", "run", "--config", str(config)]
    prctl = ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,  # Ctrl-C reaches the demo alone, which then stops everything in order
        preexec_fn=die_with_parent,
    )
    stack.callback(_stop_balancer, child)
    return child


def _stop_balancer(child: Child) -> None:
    if child.poll() is None:
        child.terminate()
    _reap(child, _STOP_WITHIN)


def _reap(child: Child, seconds: float) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def wait_ready(balancer: Child) -> None:
    """Return at READY and go on reading in a thread; Refused with the last words when it does not come."""
    ready = threading.Event()
    tail: deque[str] = deque(maxlen=30)
    reader = threading.Thread(target=_drain_output, args=(balancer, ready, tail), daemon=True)
    reader.start()
    if not ready.wait(_READY_WITHIN):
        raise Refused(f"lbfast was not READY within {_READY_WITHIN:g} s; its last words:\n{_words(tail)}")
    if not any(row.startswith("READY") for row in tail):
        reader.join(1.0)
        raise Refused(f"lbfast did not start (exit code {balancer.wait()}):\n{_words(tail)}")


def _drain_output(balancer: Child, ready: threading.Event, tail: deque[str]) -> None:
    """Read lbfast's output for ever, lest it blocks on a full pipe; ready at READY or at the end."""
    assert balancer.stdout is not None
    for row in balancer.stdout:
        tail.append(row.rstrip("\n"))
        if row.startswith("READY"):
            ready.set()
    ready.set()


def _words(tail: deque[str]) -> str:
    return "\n".join(f"  {clean(row)}" for row in tail) or "  (it said nothing)"
