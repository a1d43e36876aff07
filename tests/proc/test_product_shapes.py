"""What the reading verbs answer on a running lbfast: exactly the promised JSON; labels of every kind; limits told."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
import trustme
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from servers import TcpServer, connect, https_get, named_server, read_line
from tls_world import NAMES, TlsWorld, homes, sources, visit
from waiting import scaled

ODD_SERVICE = 'Radiology "PACS" [2] \u200f\u202e<script>alert(1)</script>'
ODD_REAL = "Server 'é' {1} \\ $HOME `id` %s \u200f"
PLAIN_REAL = "-x --reason"
# The servers live in this process, which is not always on time.
CHECK = {"type": "https", "interval": "5s", "timeout": "5s", "rise": 1, "fall": 2, "path": "/health"}

REAL_KEYS = {"label", "address", "port", "weight", "connections", "clients", "admin", "health", "state", "reason"}
SERVICE_KEYS = {"label", "address", "ports", "mode", "connections", "state", "persistence_entries", "real_servers"}
ENTRY_KEYS = {"client", "real", "state", "pinned", "reason", "connections", "created", "since", "closed"} | {
    "expires_in",
    "previous",
    "previous_reason",
}
CONNECTION_KEYS = {"id", "worker", "client", "client_port", "port", "real", "phase", "reason", "opened", "idle"} | {
    "bytes_in",
    "bytes_out",
}
EXPLAIN_KEYS = {"client", "service", "real", "since", "reason", "why", "connections", "expires_in", "pinned"} | {
    "previous",
    "previous_reason",
    "if_down",
    "refusal",
    "lines",
}
EVENT_KEYS = {"at", "event", "id", "service", "real", "client", "client_port", "port", "reason", "attempts"} | {
    "connect_ms",
    "duration_ms",
    "bytes_in",
    "bytes_out",
    "ended",
    "by",
    "error",
    "message",
    "previous",
}


@pytest.fixture(scope="module")
def world(ca: trustme.CA) -> Iterator[TlsWorld]:
    with TlsWorld(ca) as world:
        yield world


@pytest.fixture(scope="module")
def odd() -> Iterator[TcpServer]:
    with named_server("odd", "127.0.0.2") as server:
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[TcpServer]:
    with named_server("odd", "127.0.0.3") as server:
        yield server


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def odd_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def lb(world: TlsWorld, odd: TcpServer, plain: TcpServer, port: int, odd_port: int) -> Iterator[Lbfast]:
    services = [
        world.service(port, health_check=CHECK),
        virtual_service(
            odd_port,
            [real_server(ODD_REAL, odd.port, odd.address), real_server(PLAIN_REAL, plain.port, plain.address)],
            ODD_SERVICE,
            client_max_connections=2,
            client_limit_report_only=True,
        ),
    ]
    with Lbfast({"workers": 2, "virtual_service": services}) as running:
        yield running


def test_overview(lb: Lbfast, port: int, world: TlsWorld) -> None:
    visit(port, world.context, sources(6, 30))
    services = lb.json("overview")["virtual_services"]
    assert list(lb.json("overview")) == ["virtual_services"]
    symphony = services[0]
    assert set(symphony) == SERVICE_KEYS
    assert (symphony["label"], symphony["address"], symphony["ports"]) == ("Symphony", "127.0.0.1", str(port))
    assert (symphony["mode"], symphony["state"], symphony["persistence_entries"]) == ("tcp", "up", 6)
    assert [real["label"] for real in symphony["real_servers"]] == list(NAMES)
    for real in symphony["real_servers"]:
        assert set(real) == REAL_KEYS
        assert (real["address"], real["port"]) == ("127.0.0.1", world.servers[real["label"]].port)
        assert (real["weight"], real["admin"], real["health"], real["state"]) == (100, "online", "up", "up")
        assert real["reason"]
    assert sum(real["clients"] for real in symphony["real_servers"]) == 6


def test_a_drained_server_shows_who_when_and_why(lb: Lbfast) -> None:
    shown = lb.json("drain", "Symphony", NAMES[0], "--reason", 'new RAM & "disks"')
    assert set(shown) == REAL_KEYS
    assert shown["reason"].startswith("drained by ")
    assert shown["reason"].endswith(': new RAM & "disks"')
    overview = lb.json("overview")["virtual_services"][0]
    assert overview["state"] == "degraded"
    assert overview["real_servers"][0] == shown
    assert lb.json("online", "Symphony", NAMES[0])["admin"] == "online"


def test_connections_persistence_and_explain_of_an_open_connection(lb: Lbfast, port: int, world: TlsWorld) -> None:
    with connect(port, source="127.0.31.1") as raw, world.context.wrap_socket(raw, server_hostname="localhost") as sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        name = sock.recv(4096).decode().splitlines()[-1].removesuffix(" /x")
        own_port = sock.getsockname()[1]
        found = lb.json("connections", "Symphony", "--client", "127.0.31.1")["connections"]
        assert len(found) == 1
        assert set(found[0]) == CONNECTION_KEYS
        expected = {"client": "127.0.31.1", "client_port": own_port, "port": port, "real": name, "phase": "relay"}
        assert {key: found[0][key] for key in expected} == expected
        assert (found[0]["reason"], found[0]["worker"] in (0, 1)) == ("new", True)
        assert 0 <= found[0]["idle"] < scaled(5)
        _assert_time(found[0]["opened"])
        said = lb.json("explain", "Symphony", "127.0.31.1")
        assert set(said) == EXPLAIN_KEYS
        assert (said["real"], said["connections"], said["expires_in"], said["pinned"]) == (name, 1, None, False)
        assert any("1 open connection holds the entry" in line for line in said["lines"])
        entry = lb.json("persistence", "show", "Symphony", "--client", "127.0.31.1")["entries"][0]
        assert set(entry) == ENTRY_KEYS
        assert (entry["real"], entry["state"], entry["connections"], entry["closed"]) == (name, "bound", 1, None)
        _assert_time(entry["since"])


def test_persistence_health_version_and_statistics(lb: Lbfast) -> None:
    shown = lb.json("persistence", "show", "Symphony")
    assert set(shown) == {"entries", "count", "capacity"}
    assert shown["capacity"] >= 100_000
    health = lb.json("health", "Symphony", NAMES[1])
    assert {"real", "health", "state", "since", "reason", "certificate", "warnings", "results"} <= set(health)
    assert health["results"]
    assert {"at", "ok", "duration_ms", "reason"} == set(health["results"][0])
    assert health["results"][0]["ok"] is True
    assert health["certificate"]["not_after"]
    assert [it["at"] for it in health["results"]] == sorted((it["at"] for it in health["results"]), reverse=True)
    assert lb.json("version")["pid"] == lb.pid
    assert lb.call("version") == lb.call("version") | {"pid": lb.pid, "workers": 2, "config": str(lb.config_path)}
    statistics = lb.call("statistics")
    assert [worker["index"] for worker in statistics["workers"]] == [0, 1]


def test_open_and_close_records_tell_the_whole_connection(lb: Lbfast, port: int, world: TlsWorld) -> None:
    met = homes(visit(port, world.context, ["127.0.32.1"]))
    records = wait_for(lambda: _records(lb, "127.0.32.1", 2), 5, "the open and the close record")
    opened, closed = records
    assert set(opened) | set(closed) <= EVENT_KEYS
    assert (opened["event"], closed["event"], opened["id"]) == ("open", "close", closed["id"])
    for record in records:
        assert (record["service"], record["port"], record["reason"]) == ("Symphony", port, "new")
        assert met == {"127.0.32.1": record["real"]}
        _assert_time(record["at"])
    assert closed["bytes_in"] > 200
    assert closed["bytes_out"] > 500
    assert closed["ended"] == "close"
    assert closed["by"] in ("client", "server")
    assert closed["duration_ms"] >= 0
    # A thread writes the log: its lines may come a moment later.
    wait_for(lambda: sum('"127.0.32.1"' in line for line in lb.lines) == 2, 5, "both records in the log")
    logged = [json.loads(line) for line in lb.lines if '"127.0.32.1"' in line]
    assert logged == records, "the log differs from the events"


def test_events_follow_gives_one_object_a_line_as_they_happen(lb: Lbfast, port: int, world: TlsWorld) -> None:
    command = [sys.executable, "-m", "lbfast", "events", "--follow", "--json"]
    with subprocess.Popen(command, env=lb.env, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        try:
            first = wait_for(lambda: _poke(lb, follow), 10, "the first event")
            assert (first["event"], first["service"], first["real"]) == ("admin", "Symphony", NAMES[2])
            https_get(port, world.context, source="127.0.33.1")
            seen: list[dict[str, Any]] = []
            while [it["event"] for it in seen] != ["open", "close"]:
                event = json.loads(follow.stdout.readline())
                seen += [event] if event.get("client") == "127.0.33.1" else []
        finally:
            follow.terminate()
    lb.call("weight", service="Symphony", real=NAMES[2], weight=100)


def test_odd_labels_work_in_every_verb_and_reach_no_terminal_raw(lb: Lbfast, odd_port: int) -> None:
    with connect(odd_port, source="127.0.34.1") as sock:
        assert read_line(sock) == b"odd\n"
    said = lb.json("explain", ODD_SERVICE, "127.0.34.1")
    assert said["service"] == ODD_SERVICE
    assert said["real"] in (ODD_REAL, PLAIN_REAL)
    assert lb.json("drain", ODD_SERVICE, ODD_REAL, "--reason", "</script>\u202e")["label"] == ODD_REAL
    assert lb.json("online", ODD_SERVICE, ODD_REAL)["admin"] == "online"
    assert lb.json("weight", ODD_SERVICE, PLAIN_REAL, "7")["weight"] == 7
    assert lb.json("persistence", "pin", ODD_SERVICE, "127.0.34.9", PLAIN_REAL)["real"] == PLAIN_REAL
    assert lb.json("persistence", "clear", ODD_SERVICE, "--real", PLAIN_REAL)["removed"] >= 1
    assert lb.json("health", ODD_SERVICE, ODD_REAL)["real"] == ODD_REAL
    assert lb.json("connections", ODD_SERVICE) == {"connections": []}
    for verb in (["overview"], ["explain", ODD_SERVICE, "127.0.34.1"], ["events"]):
        code, out, err = lb.cli(*verb)
        assert (code, err) == (0, "")
        assert "\u202e" not in out
        assert "\u200f" not in out
        assert "<script>" in out or verb[0] == "explain", "labels are text here, nothing is stripped"


def test_the_report_only_client_limit_refuses_nobody_counts_and_is_told(lb: Lbfast, odd_port: int) -> None:
    before = _client_limited(lb)
    with ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(connect(odd_port, source="127.0.35.1"))
            assert read_line(sock) == b"odd\n"
        assert _client_limited(lb) - before == 3
    told = wait_for(lambda: _told(lb), 5, "an event about the limit")
    assert told[0]["service"] == ODD_SERVICE
    assert "beyond client_max_connections (2)" in told[0]["message"]


def _told(lb: Lbfast) -> list[dict[str, Any]]:
    events = lb.call("events", limit=1000)["events"]
    return [it for it in events if it["event"] == "process" and "client_max_connections" in it["message"]]


def _client_limited(lb: Lbfast) -> int:
    return int(lb.call("statistics")["virtual_services"][1]["client_limited"])


def _records(lb: Lbfast, client: str, count: int) -> list[dict[str, Any]]:
    found = [it for it in lb.call("events", limit=1000)["events"] if it.get("client") == client]
    return found if len(found) == count else []


def _poke(lb: Lbfast, follow: subprocess.Popen[str]) -> dict[str, Any]:
    """Make events until the follower has one."""
    lb.call("weight", service="Symphony", real=NAMES[2], weight=98)
    assert follow.stdout is not None
    return json.loads(follow.stdout.readline()) if select.select([follow.stdout], [], [], 0.1)[0] else {}


def _assert_time(text: str) -> None:
    assert datetime.fromisoformat(text).tzinfo is not None, text
