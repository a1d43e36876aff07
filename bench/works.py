"""The works: each a function that gives one peer a piece of work and says what it cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.origins import FILES, MB, SMALL
from bench.outcome import Meter, Outcome
from bench.peers import TOP, Peer, find_program

CLIENT_TIMEOUT = 40.0
# The hospital day: what one worker has to do in a second, beside the idle connections.
DAY_IDLE, DAY_CALLS, DAY_CALL_CONNECTIONS, DAY_CALLS_PER_CONNECTION, DAY_IMAGES = 1000, 1500, 100, 20, 5
SLOW_READERS, SLOW_RATE = 500, 100_000


@dataclass(frozen=True)
class Tools:
    """What the clients need: the built paced client and the servers' files; ``slowest``: requests a second."""

    paced: Path
    files: Path
    idle_connections: int
    slowest: Callable[[], float]


Run = Callable[[Peer, float, Tools], Outcome]


@dataclass(frozen=True)
class Work:
    """``key`` in the results, ``title`` for people; ``seconds`` of one sample in a full run."""

    key: str
    title: str
    run: Run
    seconds: float = 1.0
    two_workers: bool = False  # also with the peers that have two
    logged: bool = False  # also with lbfast's default logging
    first_round_only: bool = False
    repeats: int = 1  # samples in one turn, the peers alternating: for what one disturbance would spoil


def client(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.clients", *words],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON that a client printed last; a client that failed is one error."""
    try:
        said, complaint = process.communicate("\n", timeout=CLIENT_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        said, complaint = "", f"still running after {CLIENT_TIMEOUT:g} s: {process.communicate()[1]}"
    if process.returncode == 0:
        result: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
        return result
    return {"errors": 1, "wrong": 0, "seconds": 0.0, "bytes": 0, "connections": 0, "complaint": complaint[-300:]}


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.readline()


# --- closed loop: wrk -----------------------------------------------------------------------------


def wrk(peer: Peer, seconds: float, _tools: Tools, *, kind: str, path: str, connections: int, close: bool) -> Outcome:
    """As many requests as will go.  Exact counts: every answer must have had its full length."""
    scheme = "https" if kind == "tls" else "http"
    head = ["-H", "Connection: close"] if close else []
    # wrk takes whole seconds only and rounds down: for less it is stopped by SIGINT, which ends it in order.
    command = [find_program("wrk", "wrk"), "-t1", f"-c{connections}", "-d60", "--latency", *head]
    command += ["-s", str(TOP / "bench/wrk_done.lua"), f"{scheme}://127.0.0.1:{peer.ports[kind]}{path}"]
    meter = Meter(peer)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(seconds)
    process.send_signal(2)
    said = process.communicate(timeout=CLIENT_TIMEOUT)[0]
    found = [line[5:] for line in said.splitlines() if line.startswith("JSON ")]
    if not found:
        return Outcome(0, "request", seconds, errors=1)
    result = json.loads(found[0])
    body = FILES[path[1:]] * MB if path[1:] in FILES else len(SMALL)
    short = result["bytes"] < result["requests"] * body
    is_bulk = body >= MB
    outcome = Outcome(
        units=result["bytes"] / 1e9 if is_bulk else result["requests"],
        unit="GB" if is_bulk else "connection" if close else "request",
        seconds=result["duration_us"] / 1e6,
        errors=result["errors"],
        wrong=int(short),
        extra={name: result[name] for name in ("p50_us", "p99_us", "p999_us")},
    )
    return meter.charge(outcome)


# --- open loop ------------------------------------------------------------------------------------


def paced_command(
    tools: Tools, peer: Peer, connections: int, rate: float, seconds: float, turnover: int = 0
) -> list[str]:
    numbers = [connections, f"{rate:.1f}", f"{seconds:.2f}", turnover]
    return [str(tools.paced), str(peer.ports["plain"]), *map(str, numbers)]


def paced(peer: Peer, seconds: float, tools: Tools, *, share: float) -> Outcome:
    """A fixed rate, the same for every peer: a share of what the slowest of them managed."""
    rate = share * tools.slowest()
    if rate <= 0:
        return Outcome(0, "request", seconds, errors=1)
    meter = Meter(peer)
    done = subprocess.run(
        paced_command(tools, peer, 64, rate, seconds),
        capture_output=True,
        text=True,
        check=False,
        timeout=CLIENT_TIMEOUT,
    )
    return meter.charge(_of_paced(done.stdout, seconds, {"rate": rate}))


def _of_paced(said: str, seconds: float, extra: dict[str, float]) -> Outcome:
    if not said:
        return Outcome(0, "request", seconds, errors=1)
    result = json.loads(said)
    extra |= {name: result[name] for name in ("p50_us", "p99_us", "p999_us", "max_us")}
    return Outcome(result["answered"], "request", result["seconds"], result["errors"], result["wrong"], extra=extra)


# --- own clients ----------------------------------------------------------------------------------


def upload(peer: Peer, seconds: float, _tools: Tools) -> Outcome:
    meter = Meter(peer)
    result = finish(client(["upload", str(peer.ports["sink"]), "8", str(seconds)]))
    return meter.charge(Outcome(result["bytes"] / 1e9, "GB", result["seconds"], result["errors"], result["wrong"]))


def idle(peer: Peer, seconds: float, tools: Tools) -> Outcome:
    """Memory of all processes together for each open, silent connection, and the CPU time it takes to hold them."""
    count = tools.idle_connections * peer.plan.workers
    empty = peer.memory_kb()
    process = client(["idle", str(peer.ports["echo"]), str(count)])
    wait_ready(process)
    full = peer.memory_kb()
    meter = Meter(peer)
    time.sleep(seconds)
    outcome = meter.charge(Outcome(seconds, "second", seconds))
    result = finish(process)
    opened = result["connections"]
    outcome.errors, outcome.wrong = result["errors"] + (opened != count), result["wrong"]
    outcome.extra = {
        "connections": opened,
        "memory_empty_kb": empty,
        "memory_bytes_per_connection": 1024 * (full - empty) / max(opened, 1),
        "idle_cpu_percent": 100 * outcome.cpu_s / seconds,
    }
    return outcome


def slow_readers(peer: Peer, seconds: float, tools: Tools) -> Outcome:
    empty = peer.memory_kb()
    port, file = peer.ports["plain"], tools.files / "100m"
    process = client(["slow", str(port), str(SLOW_READERS), str(SLOW_RATE), str(seconds), str(file)])
    wait_ready(process)
    meter = Meter(peer)
    time.sleep(seconds / 2)
    full = peer.memory_kb()
    result = finish(process)
    outcome = Outcome(result["bytes"] / 1e9, "GB", result["seconds"], result["errors"], result["wrong"])
    outcome.extra = {
        "memory_bytes_per_connection": 1024 * (full - empty) / SLOW_READERS,
        "memory_full_kb": full,
        "late_turns": result.get("late_turns", 0),
    }
    return meter.charge(outcome)


def hospital_day(peer: Peer, seconds: float, tools: Tools) -> Outcome:
    """The same work a second for every peer: devices that stay connected, calls in short connections, large images."""
    holder = client(["idle", str(peer.ports["echo"]), str(DAY_IDLE)])
    wait_ready(holder)
    meter = Meter(peer)
    pictures = client(["images", str(peer.ports["plain"]), str(DAY_IMAGES), str(seconds), str(tools.files / "20m")])
    calls = subprocess.run(
        paced_command(tools, peer, DAY_CALL_CONNECTIONS, DAY_CALLS, seconds, DAY_CALLS_PER_CONNECTION),
        capture_output=True,
        text=True,
        check=False,
        timeout=CLIENT_TIMEOUT,
    )
    shown = finish(pictures)
    outcome = _of_paced(calls.stdout, seconds, {"image_p50_ms": shown.get("image_p50_ms", 0.0)})
    outcome.units, outcome.unit = seconds, "second"
    meter.charge(outcome)
    held = finish(holder)
    outcome.errors += shown["errors"] + held["errors"]
    outcome.wrong += shown["wrong"] + held["wrong"]
    return outcome


def _wrk(kind: str, path: str, connections: int, close: bool = False) -> Run:
    return partial(wrk, kind=kind, path=path, connections=connections, close=close)


def all_works() -> list[Work]:
    """In the order of a round; the letters are those of docs/performance.md."""
    small, once = _wrk("plain", "/s", 64), _wrk("plain", "/s", 64, close=True)
    return [
        # Before all others: memory that a peer keeps from earlier work would hide what a connection takes.
        Work("f", "idle connections", idle, 2.0, two_workers=True, first_round_only=True),
        Work("a1", "bulk: 1 MB answers, 32 connections", _wrk("plain", "/1m", 32), two_workers=True),
        Work("a2", "bulk: 100 MB answers, 4 connections", _wrk("plain", "/100m", 4), 1.2),
        Work("b1", "small answers, keep-alive, 1 connection", _wrk("plain", "/s", 1)),
        Work("b64", "small answers, keep-alive, 64 connections", small, two_workers=True, logged=True, repeats=3),
        Work("b1000", "small answers, keep-alive, 1,000 connections", _wrk("plain", "/s", 1000)),
        Work("c", "a connection per request, 64 at a time", once, two_workers=True, logged=True),
        Work("d1", "TLS pass-through, a handshake per request", _wrk("tls", "/s", 64, True), two_workers=True),
        Work("d2", "TLS pass-through, keep-alive", _wrk("tls", "/s", 64)),
        Work("e", "upload, 8 connections", upload, two_workers=True),
        # Not shorter: of 0.4 s the slowest hundredth is one turn of the scheduler, 4 ms, or none.
        Work("g25", "latency at 25 % of the slowest peer's rate", partial(paced, share=0.25), 1.0),
        Work("g50", "latency at 50 %", partial(paced, share=0.50), 1.0, repeats=3),
        Work("g75", "latency at 75 %", partial(paced, share=0.75), 1.0),
        Work("h", "500 slow readers at 100 kB/s each", slow_readers, 1.5),
        Work("i", "a hospital day", hospital_day, 2.0, logged=True),
    ]
