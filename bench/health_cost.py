"""Measure what the health process costs: N real servers on real local listeners, one JSON line.

    python bench/health_cost.py --reals 500 --interval 2000 --seconds 20 --type connect

The listeners live in a process of their own, so that only the probing side is
counted.  ``percent_of_one_core`` is the CPU time (user and system) of the health
process over the wall time of the steady part, after all first verdicts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import signal
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trustme

from lbfast._table import Table
from lbfast.health.report import Message
from lbfast.health.results import ProbeResults
from lbfast.health.runner import Runner
from lbfast.health.spec import CheckedReal, ProbeSpec, ProbeType

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


class _Answerer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(ANSWER)


def serve_all(listeners: list[socket.socket], context: ssl.SSLContext | None) -> int:
    """Fork the process of the real servers; its pid."""
    pid = os.fork()
    if pid:
        return pid

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for listener in listeners:
            await loop.create_server(_Answerer, sock=listener, ssl=context)
        await asyncio.Event().wait()

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(serve())
    os._exit(1)


def make_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("bench.example").configure_cert(context)
    return context


def make_script() -> str:
    path = Path(tempfile.mkdtemp(prefix="lbfast-bench-")) / "check.sh"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return str(path)


def settings_of(slot: int, port: int) -> Any:
    return {
        "id": slot.to_bytes(16, "big"),
        "service": slot // 10,
        "address": "127.0.0.1",
        "port": port,
        "weight": 100,
        "max_connections": 0,
        "slow_start_ms": 0,
        "is_fallback": False,
    }


async def measure(checks: list[CheckedReal], seconds: float) -> dict[str, Any]:
    shared = SimpleNamespace(table=Table.create(), results=ProbeResults.create(len(checks)))
    for check in checks:
        shared.table.write_real(check.slot, settings_of(check.slot, check.spec.port))
    ready = asyncio.Event()
    messages: list[Message] = []

    def tell(message: Message) -> None:
        messages.append(message)
        if message["event"] == "verdicts":
            ready.set()

    wake = os.eventfd(0, os.EFD_NONBLOCK)
    runner = Runner(checks, shared.table, shared.results, wake, tell)
    loop = asyncio.get_running_loop()
    began = loop.time()
    runner.start()
    await ready.wait()
    first_verdicts_s = loop.time() - began
    await asyncio.sleep(max(check.spec.interval_ms for check in checks) / 1000)
    done = sum(numbers(shared.results))
    wall, cpu = loop.time(), cpu_s()
    await asyncio.sleep(seconds)
    wall, cpu = loop.time() - wall, cpu_s() - cpu
    probes = sum(numbers(shared.results)) - done
    await runner.stop()
    return {
        "first_verdicts_s": round(first_verdicts_s, 2),
        "seconds": round(wall, 1),
        "probes": probes,
        "percent_of_one_core": round(100 * cpu / wall, 1),
        "us_per_probe": round(1e6 * cpu / probes),
        "down_messages": sum(message.get("to") == "down" for message in messages),
        "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def numbers(results: ProbeResults) -> list[int]:
    """How many results each real server has had."""
    return list(results._numbers.values())


def cpu_s() -> float:
    """Of this process and of the scripts it ran."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reals", type=int, default=500)
    parser.add_argument("--interval", type=int, default=2_000, help="ms")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--type", choices=[kind.value for kind in ProbeType], default="connect")
    options = parser.parse_args()
    kind = ProbeType(options.type)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(options.reals)]
    uses_tls = kind in (ProbeType.TLS, ProbeType.HTTPS)
    servers = serve_all(listeners, make_context() if uses_tls else None)
    try:
        ports = [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            listener.close()
        common = {"interval_ms": options.interval, "script": make_script() if kind is ProbeType.EXTERNAL else None}
        checks = [
            CheckedReal(
                slot, slot // 10, f"service {slot // 10}", f"S{slot}", ProbeSpec(kind, "127.0.0.1", port, **common)
            )
            for slot, port in enumerate(ports)
        ]
        found = asyncio.run(measure(checks, options.seconds))
    finally:
        os.kill(servers, signal.SIGTERM)
        os.waitpid(servers, 0)
    where = {"python": platform.python_version(), "cores": os.cpu_count()}
    json.dump(
        {"type": kind.value, "reals": options.reals, "interval_ms": options.interval, **found, **where}, sys.stdout
    )
    print()


if __name__ == "__main__":
    main()
