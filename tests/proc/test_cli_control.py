"""The command line against the real control process on real shared memory, without workers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_fake import environment, lbfast

from lbfast.cli.demo_text import Served, render_config

CONTROL = """
import socket, sys
from pathlib import Path
from lbfast.config.ids import KnownIds, assign_ids
from lbfast.config.layout import plan_layout
from lbfast.config.publish import publish
from lbfast.config.store import load
from lbfast.control.process import run_control
from lbfast.supervisor.channel import Channel
from lbfast.supervisor.seats import Seats, make_counters
from lbfast.supervisor.shared import create_shared
path = Path(sys.argv[1])
config, _ = assign_ids(load(path).config, KnownIds())
layout = plan_layout(config)
shared = create_shared(config, layout, make_counters())
Seats(shared, 100).take(0)
publish(shared.table, config, layout)
sys.exit(run_control(path, config, layout, shared, Channel(socket.socket(fileno=int(sys.argv[2])))))
"""
VS, R1, R2 = "Symphony", "Symphony Server 1", "Symphony [2]"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    file = folder / "lbfast.toml"
    file.write_text(render_config(8443, 9443, [Served(R1, 1, 1), Served(R2, 2, 2)]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", CONTROL, str(file), str(theirs.fileno())],
            env=environment(folder, LBFAST_STATE_DIR=str(folder)),
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.settimeout(30)
        assert json.loads(ours.recv(65536)) == {"event": "ready"}
        yield folder
        child.terminate()
        assert child.wait(30) == 0


def said(runtime: Path, *words: str) -> str:
    done = lbfast(runtime, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_verb_understands_the_real_answers(runtime):
    assert "127.0.0.1:8443 tcp" in said(runtime, "overview")
    assert "a [b] c" in said(runtime, "drain", VS, R2, "--reason", "a [b] c")
    assert "a [b] c" in said(runtime, "overview")
    assert "weight 0" in said(runtime, "weight", VS, R2, "0")
    assert R2 in said(runtime, "online", VS, R2)
    assert "halt" in said(runtime, "halt", VS, R2)
    assert "pinned to" in said(runtime, "persistence", "pin", VS, "10.1.2.3", R1)
    shown = said(runtime, "persistence", "show", VS)
    assert "10.1.2.3" in shown
    assert "never" in shown
    assert "pinned" in said(runtime, "explain", VS, "10.1.2.3")
    assert "0 entries removed" in said(runtime, "persistence", "clear", VS, "--client", "10.9.0.0/16")
    assert "1 entry removed" in said(runtime, "persistence", "clear", VS)
    assert "room for" in said(runtime, "persistence", "show", VS)
    assert said(runtime, "connections", VS) == "0 connections\n"
    assert "no health check has ended yet" in said(runtime, "health", VS, R1)
    assert "1 worker, " in said(runtime, "version")
    events = said(runtime, "events")
    assert "pinned by" in events
    assert "1 persistence entries cleared by" in events


@pytest.mark.parametrize(
    "words",
    [
        ["overview"],
        ["persistence", "show", VS],
        ["connections", VS],
        ["explain", VS, "10.1.2.9"],
        ["events"],
        ["health", VS, R1],
        ["version"],
    ],
)
def test_json(runtime, words):
    assert json.loads(said(runtime, *words, "--json"))


def test_refusals(runtime):
    unknown = lbfast(runtime, "drain", "symphony", R1)
    assert unknown.returncode == 1
    assert unknown.stderr == 'lbfast: no virtual service "symphony"; did you mean "Symphony"? There are: "Symphony"\n'
    unknown = lbfast(runtime, "health", VS, "Symphony Server 2")
    assert unknown.returncode == 1
    assert '"Symphony [2]"' in unknown.stderr
    long = lbfast(runtime, "drain", VS, R1, "--reason", "x" * 501)
    assert long.returncode == 1
    assert long.stderr.count("\n") == 1
