"""Processes killed and stopped under load: what clients see, what operators see, how long it takes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

from faults_world import Held, World, world
from harness import is_running, wait_for
from load_clients import Load
from waiting import freeze

CROWD = [f"127.0.60.{host}" for host in range(1, 17)]
PROCESSES = ("worker0", "worker1", "control", "health")
Figure = Callable[[str, str], None]


def test_any_one_and_any_two_processes_die_under_load(tmp_path: Path, figure: Figure) -> None:
    with world(tmp_path, health_check={"type": "connect", "interval": "300ms", "timeout": "300ms"}) as stage:
        with Load(stage.port, CROWD) as load:
            load.wait_more(100)
            for names in (*((name,) for name in PROCESSES), *combinations(PROCESSES, 2)):
                _kill(stage, load, names, figure)
        assert load.refused == [], "somebody was not even let in"
        assert {name: sum(met.values()) > 0 for name, met in load.met.items()} == dict.fromkeys(CROWD, True)
        assert all(len(met) == 1 for met in load.met.values()), "a client was moved"
        wait_for(lambda: stage.service()["connections"] == 0, 20, "every count to be given back")
        assert {it["connections"] for it in stage.service()["real_servers"]} == {0}


def _kill(stage: World, load: Load, names: tuple[str, ...], figure: Figure) -> None:
    old = {name: stage.lb.child(name) for name in names}
    lost, at = len(load.cut), time.monotonic()
    for pid in old.values():
        os.kill(pid, signal.SIGKILL)
    for name, pid in old.items():
        stage.lb.wait_replaced(name, pid)
    back = time.monotonic() - at
    load.wait_more(60)
    wait_for(lambda: stage.lb.call("overview"), 20, f"verbs after {names} were killed")
    lost = len(load.cut) - lost
    if not any(name.startswith("worker") for name in names):
        assert lost == 0, f"clients lost connections although only {names} died"
    assert lost <= len(CROWD), "more were cut than there were"
    figure(f"SIGKILL {' + '.join(names)}", f"{lost} of {len(CROWD)} connections lost, started again in {back:.2f} s")


def test_a_stopped_worker_is_found_and_replaced(tmp_path: Path, figure: Figure) -> None:
    with world(tmp_path) as stage, ExitStack() as stack:
        held = [Held(stack, stage.port, f"127.0.61.{host}") for host in range(1, 13)]
        place = {it["client_port"]: it["worker"] for it in stage.connections()}
        mine = [it for it in held if place[it.port] == 0]
        others = [it for it in held if place[it.port] == 1]
        assert mine
        assert others
        old = stage.lb.child("worker0")
        at = time.monotonic()
        freeze(old)
        stage.lb.wait_replaced("worker0", old, timeout=30)
        took = time.monotonic() - at
        assert all(it.is_alive() for it in others), "connections of the other worker suffered"
        assert not any(it.is_alive() for it in mine), "the dead worker's connections go on?"
        told = stage.wait_told(f"worker 0 (pid {old})", "has not turned its loop")
        assert "it is stopped by a signal" in told
        assert told.endswith("; killed")
        stage.wait_told(f"worker 0 (pid {old}) had {len(mine)} connections")
        ports = {it.port for it in mine}
        wait_for(
            lambda: {record["client_port"] for record in stage.ended("worker_died")} == ports, 20, "their close records"
        )
        again = Held(stack, stage.port, mine[0].source)
        assert again.name == mine[0].name, "the client was moved"
        figure("SIGSTOP of a worker", f"{len(mine)} connections of it lost, 0 of others, replaced after {took:.1f} s")


def test_a_worker_with_too_much_to_do_is_no_hung_one(tmp_path: Path) -> None:
    """Its loop turns all the time, however busy: nobody is killed while the crowd is served."""
    with world(tmp_path) as stage, Load(stage.port, CROWD) as load:
        before = {name: pid for name, pid in stage.lb.children().items() if "worker" in name}
        load.wait_more(3_000, timeout=120)
        assert all(is_running(pid) for pid in before.values())
        assert stage.told("has not turned its loop") == ""
        assert load.failures == []
