"""A control server with canned answers in the shapes of docs/internals.md, for the tests of the command line."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Answer = Any

TRICKY = 'Röntgen [bold]"PACS"[/bold] \u200fX\x1b[31m'


def real(label: str, **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "address": "192.168.85.200",
        "port": None,
        "weight": 100,
        "connections": 12,
        "clients": 40,
        "admin": "online",
        "health": "up",
        "state": "up",
        "reason": "",
    } | changes


def service(label: str, *reals: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "address": "192.168.85.150",
        "ports": "443",
        "mode": "tcp",
        "connections": 36,
        "state": "degraded",
        "persistence_entries": 120,
        "real_servers": list(reals),
    } | changes


OVERVIEW = {
    "virtual_services": [
        service(
            "Symphony",
            real("Symphony Server 1", state="drain", admin="drain", reason="drained by root at 14:00: patching"),
            real("Symphony Server 2"),
            real("Symphony Server 3", state="down", health="down", reason="connection refused"),
            fallback_server=real("fallback", address="192.168.85.9", clients=None),
        ),
        service(
            TRICKY, real(TRICKY, address="2001:db8::1", port=8443), address="2001:db8::f", persistence_entries=None
        ),
    ]
}
WORKER_COUNTERS = (
    *("connections", "accepted", "handed_over", "taken_over", "accept_errors"),
    *("no_descriptors", "no_memory", "no_ports", "no_pipes", "stick_full"),
)
STATISTICS = {
    "workers": [{"index": index, **dict.fromkeys(WORKER_COUNTERS, 0), "no_ports": 17} for index in range(2)],
    "events": {"lost": 0, "skipped": 4, "not_logged": 5},
    "virtual_services": [
        {
            "label": found["label"],
            **{"connections": 12, "accepted": 320, "denied": 1, "limited": 2, "client_limited": 3, "refused": 4},
            "real_servers": [
                {
                    "label": one["label"],
                    **{"connections": 12, "opened": 100, "connect_failures": 6},
                    **{"bytes_in": 1000, "bytes_out": 5_000_000},
                }
                for one in found["real_servers"]
            ],
        }
        for found in OVERVIEW["virtual_services"]
    ],
}
ENTRY = {
    "client": "10.1.2.3",
    "real": "Symphony Server 2",
    "state": "bound",
    "pinned": False,
    "reason": "new",
    "connections": 0,
    "created": "2026-03-01T10:00:00.000+00:00",
    "since": "2026-03-01T10:00:00.000+00:00",
    "closed": "2026-03-01T10:05:00.000+00:00",
    "expires_in": 1250.5,
    "previous": None,
    "previous_reason": None,
}
CONNECTION = {
    "id": "0-17",
    "worker": 0,
    "client": "10.1.2.3",
    "client_port": 50000,
    "port": 443,
    "real": "Symphony Server 2",
    "phase": "relay",
    "reason": "table",
    "opened": "2026-03-01T10:00:00.000+00:00",
    "idle": 1.25,
    "bytes_in": 512,
    "bytes_out": 1234567,
}
EVENTS = [
    {
        "at": "2026-03-01T10:00:00.000+00:00",
        "event": "open",
        "id": "0-17",
        "service": "Symphony",
        "real": "Symphony Server 2",
        "client": "10.1.2.3",
        "client_port": 50000,
        "port": 443,
        "reason": "table",
        "attempts": 1,
        "connect_ms": 2,
    },
    {
        "at": "2026-03-01T10:00:09.000+00:00",
        "event": "admin",
        "service": "Symphony",
        "real": "Symphony Server 1",
        "message": "drained by root: \x1b]0;title\x07patching",
    },
]
ANSWERS: dict[str, Answer] = {
    "overview": OVERVIEW,
    "statistics": STATISTICS,
    "drain": OVERVIEW["virtual_services"][0]["real_servers"][0],
    "halt": real("Symphony Server 1", state="halt", admin="halt", connections=0),
    "online": real("Symphony Server 1"),
    "weight": real("Symphony Server 1", weight=7),
    "persistence_show": {
        "entries": [ENTRY, ENTRY | {"client": "10.1.2.4", "pinned": True}],
        "count": 120,
        "capacity": 65536,
    },
    "persistence_clear": {"removed": 3},
    "persistence_pin": ENTRY | {"pinned": True, "expires_in": None},
    "connections": {"connections": [CONNECTION]},
    "explain": {
        "client": "10.1.2.3",
        "service": "Symphony",
        "real": "Symphony Server 2",
        "since": "2026-03-01T10:00:00.000+00:00",
        "reason": "new",
        "why": "10.1.2.3 came for the first time",
        "connections": 0,
        "expires_in": 1250.5,
        "pinned": False,
        "previous": None,
        "previous_reason": None,
        "if_down": "Symphony Server 3",
        "refusal": None,
        "lines": ["10.1.2.3 goes to Symphony Server 2.", "If that server went down: Symphony Server 3."],
    },
    "events": {"events": EVENTS},
    "health": {
        "real": "Symphony Server 3",
        "health": "down",
        "state": "down",
        "since": "2026-03-01T10:00:00.000+00:00",
        "reason": "connection refused",
        "certificate": {"subject": "CN=one", "names": ["one", "two"], "not_after": 1790000000},
        "warnings": ["the certificate expires in 6 days"],
        "results": [
            {"at": "2026-03-01T10:00:04.000+00:00", "ok": False, "duration_ms": 1.0, "reason": "connection refused"},
            {"at": "2026-03-01T10:00:00.000+00:00", "ok": True, "duration_ms": 12.5, "reason": "status 200"},
        ],
    },
    "version": {
        "version": "0.1.0",
        "pid": 4711,
        "started": "2026-03-01T09:00:00.000+00:00",
        "config": "/etc/lbfast/lbfast.toml",
        "workers": 2,
    },
}


class FakeControl(socketserver.ThreadingUnixStreamServer):
    """Answers from ``answers`` (an Exception-like ``("error", code, message)`` refuses) and keeps every request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self.answers = dict(ANSWERS)
        self.requests: list[dict[str, Any]] = []
        self.followed = threading.Event()
        self.end_streams = threading.Event()
        super().__init__(str(path), _Handler)

    def asked(self, verb: str) -> list[dict[str, Any]]:
        """The arguments of every request of a verb."""
        return [request["args"] for request in self.requests if request["verb"] == verb]


class _Handler(socketserver.StreamRequestHandler):
    server: FakeControl

    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return
        request = json.loads(line)
        self.server.requests.append(request)
        answer = self.server.answers[request["verb"]]
        if isinstance(answer, tuple):
            self._send({"ok": False, "error": {"code": answer[1], "message": answer[2]}})
        elif request["args"].get("follow"):
            for event in answer["events"]:
                self._send({"ok": True, "result": event})
            self.server.followed.set()
            self.server.end_streams.wait()
        else:
            self._send({"ok": True, "result": answer})

    def _send(self, value: Any) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")


@contextmanager
def fake_control(runtime: Path) -> Iterator[FakeControl]:
    """A fake listening in a runtime directory."""
    path = runtime / "control.sock"
    with FakeControl(path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.end_streams.set()
            server.shutdown()
            thread.join()
            path.unlink()


def environment(runtime: Path, **more: str) -> dict[str, str]:
    """The test's environment with its own places and UTF-8 output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LBFAST_", "NO_COLOR", "FORCE_"))}
    return kept | {"LBFAST_RUNTIME_DIR": str(runtime), "PYTHONIOENCODING": "utf-8", "TZ": "UTC"} | more


def lbfast(runtime: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "lbfast", *words],
        env=environment(runtime, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
