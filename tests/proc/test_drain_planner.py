"""Draining by plan, on real processes: the forecast, a deadline of its own, cuts one after the other, and the wait."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from harness import Lbfast, free_port, real_server, scaled, virtual_service, wait_for
from live_world import named_servers, text_of
from servers import connect, read_line

CLIENTS = 60


@dataclass
class Stage:
    lb: Lbfast
    port: int
    stack: ExitStack

    def join(self, source: str) -> tuple[socket.socket, str]:
        sock = self.stack.enter_context(connect(self.port, source=source))
        return sock, read_line(sock).decode().strip()

    def plan(self, **args: object) -> dict[str, object]:
        found: dict[str, object] = self.lb.call("drain_plan", service="Symphony", real="R1", **args)
        return found


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    settings = getattr(request, "param", {})
    port = free_port()
    with named_servers() as servers, ExitStack() as stack:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with Lbfast(text_of([virtual_service(port, reals, **settings)]), allow_stderr=True) as lb:
            yield Stage(lb, port, stack)
            stack.close()


def alive(socks: list[socket.socket]) -> list[socket.socket]:
    """Those that were neither closed nor reset: nothing is to be read on them."""
    ended = select.select(socks, [], [], 0)[0] if socks else []
    return [sock for sock in socks if sock not in ended]


def test_a_staggered_cut_takes_clients_one_after_the_other_and_each_moves_for_good(stage: Stage) -> None:
    held = {f"127.7.0.{host}": stage.join(f"127.7.0.{host}") for host in range(1, CLIENTS + 1)}
    here = {source: sock for source, (sock, name) in held.items() if name == "R1"}
    others = [sock for sock, name in held.values() if name != "R1"]
    assert len(here) == CLIENTS // 3
    plan = stage.plan(deadline=0, cut=True, stagger=12)
    assert (plan["connections"], plan["clients"], plan["connections_at_deadline"]) == (20, 20, 20)
    assert float(str(plan["empty_in"])) <= 12
    code, out, err = stage.lb.cli(
        "drain", "Symphony", "R1", "--deadline", "0s", "--cut", "--stagger", "12s", "--reason", "patches"
    )
    assert (code, err) == (0, "")
    assert "then cut, over 12 s" in out
    left = wait_for(
        lambda: (now := alive(list(here.values()))) and len(now) < len(here) and now, 10, "the first to be cut"
    )
    assert len(left) >= len(here) // 2, "they were cut all at once"
    gone = next(source for source, sock in here.items() if sock not in left)
    assert stage.join(gone)[1] != "R1", "a client that was cut came back to the drained server"
    # The one that stays while the others go is killed in the middle: its successor goes on.
    old = stage.lb.child("control")
    os.kill(old, signal.SIGKILL)
    stage.lb.wait_replaced("control", old)
    wait_for(lambda: not alive(list(here.values())), 40, "the rest to be cut")
    assert len(alive(others)) == len(others), "clients of other servers were cut"
    ended = [it for it in stage.lb.call("events", limit=1000)["events"] if it.get("ended") == "cut"]
    assert {it["real"] for it in ended} == {"R1"}
    assert wait_for(lambda: stage.lb.call("occupancy", service="Symphony", real="R1")["safe"], 10, "nobody to be on it")
    met = {source: stage.join(source)[1] for source in here}
    assert "R1" not in met.values()


def test_without_cut_connections_stay_and_the_next_one_moves(stage: Stage) -> None:
    sock, name = stage.join("127.7.1.1")
    code, out, err = stage.lb.cli("drain", "Symphony", name, "--deadline", "0s", "--stagger", "1s")
    assert (code, err) == (0, "")
    wait_for(lambda: any("deadline passed: no client" in it.get("message", "") for it in _events(stage)), 20, "its end")
    sock.sendall(b"still there\n")
    assert read_line(sock) == b"still there\n"
    assert stage.join("127.7.1.1")[1] != name
    assert out


def _events(stage: Stage) -> list[dict[str, str]]:
    found: list[dict[str, str]] = stage.lb.call("events", limit=1000)["events"]
    return found


@pytest.mark.parametrize("stage", [{"drain_policy": "while_connected"}], indirect=True)
def test_wait_ends_when_the_last_one_has_left(stage: Stage) -> None:
    sock, name = stage.join("127.7.2.1")
    words = ["wait", "Symphony", name, "--safe-to-patch"]
    code, _, err = stage.lb.cli(*words)
    assert code == 1, "a server that takes new clients is never safe"
    assert "drain" in err
    assert stage.lb.cli("drain", "Symphony", name)[0] == 0
    code, out, err = stage.lb.cli(*words, "--timeout", "1s")
    assert (code, err) == (3, "")
    assert "1 open connection, 1 client" not in out, "while_connected lets nobody return without a connection"
    assert "1 open connection" in out.splitlines()[0]
    assert out.splitlines()[-1].endswith("the time is up")
    command = [sys.executable, "-m", "lbfast", *words, "--json"]
    waiting = subprocess.Popen(command, env=stage.lb.env, stdout=subprocess.PIPE, text=True)
    try:
        assert waiting.stdout is not None
        assert '"safe":false' in waiting.stdout.readline()
        sock.close()
        assert waiting.wait(scaled(20)) == 0
        assert '"done":true,"safe":true' in waiting.stdout.read()
    finally:
        waiting.kill()
        waiting.wait()
        waiting.stdout.close()


BAD = [
    (["drain", "Symphony", "R1", "--deadline", "soon"], 2, "--deadline takes a time in whole seconds"),
    (["drain", "Symphony", "R1", "--stagger", "1500ms"], 2, "whole seconds"),
    (["drain", "Symphony", "R1", "--cut"], 1, "found without a deadline"),
    (["drain", "Symphony", "R1", "--plan", "--reason", "x"], 2, "takes no --reason"),
    (["drain", "Symphony", "R9", "--plan"], 1, "R9"),
    (["wait", "Symphony", "R1"], 2, "--safe-to-patch"),
    (["wait", "Symphony", "R1", "--safe-to-patch", "--timeout", "-1s"], 2, "--timeout"),
]


def test_bad_words_are_told_and_change_nothing(stage: Stage) -> None:
    for words, code, told in BAD:
        found, out, err = stage.lb.cli(*words)
        assert (found, out) == (code, ""), words
        assert told in err, words
    states = {it["label"]: it["admin"] for it in stage.lb.call("overview")["virtual_services"][0]["real_servers"]}
    assert set(states.values()) == {"online"}
