"""A health check tested now: by the command line, by REST, with values that are not saved; and nothing is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_world import Api, make_key, web_lbfast
from harness import Lbfast, free_port, real_server, virtual_service
from servers import TcpServer
from waiting import wait_for

V1 = "/api/v1"
TEST = f"{V1}/services/Symphony/reals/Server%201/health/test"
DRAFT = f"{V1}/candidate/health/test"


def http_server() -> TcpServer:
    """Answers 200 for /up and 404 for anything else."""

    def handle(sock: Any) -> None:
        head = sock.recv(4096)
        status = b"200 OK" if b" /up " in head.partition(b"\r\n")[0] else b"404 Not Found"
        sock.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwell\n")

    return TcpServer(handle)


@dataclass
class World:
    lbfast: Lbfast
    api: Api
    server: TcpServer


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One real server that passes its check, one where nobody listens."""
    check = {"type": "http", "path": "/up", "interval": "1h", "expected_text": "well"}
    with http_server() as server:
        reals = [real_server("Server 1", server.port), real_server("Server 2", free_port())]
        services = [virtual_service(free_port(), reals, health_check=check)]
        with web_lbfast(services=services) as (lbfast, api):
            yield World(lbfast, api, server)


def test_the_command_line_tells_each_step_and_the_verdict_by_its_exit_code(world: World) -> None:
    code, out, err = world.lbfast.cli("health", "Symphony", "Server 1", "--test")
    assert (code, err) == (0, "")
    for seen in ("passed", f"connected to 127.0.0.1:{world.server.port}", "GET /up sent", "HTTP/1.1 200 OK", "found"):
        assert seen in out
    code, out, err = world.lbfast.cli("health", "Symphony", "Server 2", "--test")
    assert (code, err) == (1, "")
    assert "Connection refused" in out
    code, _, err = world.lbfast.cli("health", "Symphony", "Server 3", "--test")
    assert (code, "Server 3" in err) == (1, True)
    assert world.lbfast.cli("health", "Symphony", "Server 1", "--candidate")[0] == 2


def test_a_test_does_not_count(world: World) -> None:
    asked = {"service": "Symphony", "real": "Server 1"}

    def counted() -> dict[str, Any]:
        """Without the moment, which is an age told as a time: its last digit is not always the same."""
        return {key: value for key, value in world.lbfast.call("health", **asked).items() if key != "since"}

    wait_for(lambda: counted()["results"], 20, "the first regular probe")
    before = counted()
    seen = world.server.accepted
    assert world.api.ok("POST", TEST)["ok"] is True
    assert world.server.accepted == seen + 1, "it is a real connection"
    assert counted() == before
    events = world.lbfast.call("events", limit=5)["events"]
    assert any("health check tested by" in it["message"] for it in events), "but it is said who made it"


def test_what_is_not_saved_is_tested_and_not_kept(world: World) -> None:
    change = {"op": "change_service", "service": "Symphony", "settings": {"health_check": {"path": "/other"}}}
    found = world.api.ok("POST", DRAFT, {"service": "Symphony", "operations": [change]})["tests"]
    assert [(it["real"], it["ok"]) for it in found] == [("Server 1", False), ("Server 2", False)]
    assert found[0]["reason"] == "HTTP 404 Not Found, expected 200-299"
    assert found[0]["steps"][-1]["phase"] == "status"
    assert not world.lbfast.call("candidate")["is_changed"]
    address = {"address": "127.0.0.1", "port": world.server.port}
    other = world.api.ok("POST", DRAFT, {"service": "Symphony", **address})["tests"]
    assert [(it["place"], it["ok"]) for it in other] == [(f"127.0.0.1:{world.server.port}", True)]


def test_a_candidate_is_tested_from_the_command_line(world: World) -> None:
    words = ("--service", "Symphony")
    assert world.lbfast.cli("candidate", "set", "health_check.expected_text", "unwell", *words)[0] == 0
    code, out, _ = world.lbfast.cli("health", "Symphony", "Server 1", "--test", "--candidate")
    assert (code, "text 'unwell' not found" in out) == (1, True)
    assert world.lbfast.cli("health", "Symphony", "Server 1", "--test")[0] == 0, "what runs is another one"
    assert world.lbfast.cli("candidate", "discard")[0] == 0


def test_what_is_wrong_is_said(world: World) -> None:
    change = {"op": "change_service", "service": "Symphony", "settings": {"health_check": {"interval": "often"}}}
    refused = world.api.call("POST", DRAFT, {"service": "Symphony", "operations": [change]})
    assert refused.status == 422
    assert refused.json["problems"][0]["field"] == "health_check.interval"
    for body, status, word in (
        ({"service": "Nothing"}, 404, "Nothing"),
        ({"service": "Symphony", "real": "Server 9"}, 404, "Server 9"),
        ({"service": "Symphony", "address": "300.1.1.1"}, 422, "300.1.1.1"),
        ({"service": "Symphony", "port": 80}, 422, "address"),
        ({"service": "Symphony", "operations": [{"op": "none"}]}, 422, "none"),
    ):
        answer = world.api.call("POST", DRAFT, body)
        assert (answer.status, word in answer.json["detail"]) == (status, True), answer.body


def test_who_may_test(world: World) -> None:
    """What runs: who may operate.  What is typed names any server and any script: who may configure."""
    reader, operator = (Api(world.api.port, make_key(world.lbfast, role)) for role in ("report", "operate"))
    assert reader.call("POST", TEST).status == 403
    assert operator.call("POST", TEST).status == 200
    assert operator.call("POST", DRAFT, {"service": "Symphony"}).status == 403
    assert operator.call("POST", f"{V1}/verbs/health_test", {"service": "Symphony"}).status == 403
