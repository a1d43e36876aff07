"""Every verb as a process against a control server with canned answers: text, JSON, arguments, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_fake import ANSWERS, OVERVIEW, TRICKY, FakeControl, environment, fake_control, lbfast


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FakeControl]:
    with fake_control(tmp_path) as server:
        yield server


VS, R1 = "Symphony", "Symphony Server 1"
# words after `lbfast`, the verb of the protocol, its arguments, words that the text must hold
VERBS = [
    (
        ["overview"],
        "overview",
        {},
        ["Symphony Server 1", "drain", "192.168.85.150:443", "192.168.85.9", "patching", "120 clients"],
    ),
    (["drain", VS, R1, "--reason", "-x"], "drain", {"service": VS, "real": R1, "reason": "-x"}, ["drain", "12 open"]),
    (["halt", VS, R1], "halt", {"service": VS, "real": R1}, ["halt", "0 open connections"]),
    (["online", VS, R1], "online", {"service": VS, "real": R1}, ["up"]),
    (["weight", VS, R1, "7"], "weight", {"service": VS, "real": R1, "weight": 7}, ["weight 7"]),
    (
        ["persistence", "show", VS],
        "persistence_show",
        {"service": VS},
        ["10.1.2.3", "20 min 50 s", "pinned", "2 of 120 shown", "room for 65536"],
    ),
    (["persistence", "clear", VS], "persistence_clear", {"service": VS}, ["3 entries removed", "all there were"]),
    (
        ["persistence", "clear", VS, "--client", "10.1.2.0/24", "--real", R1],
        "persistence_clear",
        {"service": VS, "client": "10.1.2.0/24", "real": R1},
        ["3 entries removed", "10.1.2.0/24", R1],
    ),
    (
        ["persistence", "pin", VS, "10.1.2.3", "Symphony Server 2"],
        "persistence_pin",
        {"service": VS, "client": "10.1.2.3", "real": "Symphony Server 2"},
        ["10.1.2.3 is pinned to", "Symphony Server 2"],
    ),
    (
        ["connections", VS, "--client", "2001:DB8::1"],
        "connections",
        {"service": VS, "client": "2001:db8::1"},
        ["10.1.2.3:50000", "relay", "1.2 MB", "1 connection"],
    ),
    (["explain", VS, "10.1.2.3"], "explain", {"service": VS, "client": "10.1.2.3"}, ["If that server went down"]),
    (
        ["events", "--limit", "5"],
        "events",
        {"limit": 5},
        ["10:00:00 open   10.1.2.3 -> Symphony / Symphony Server 2  (table)", "10:00:09 admin"],
    ),
    (
        ["health", VS, "Symphony Server 3"],
        "health",
        {"service": VS, "real": "Symphony Server 3"},
        ["connection refused", "warning: the certificate expires", "names one two", "not after 2026-", "12 ms"],
    ),
    (["statistics"], "statistics", {}, ["NO PORTS", "17", "Symphony Server 2", "5.0 MB", "kept out of the log 5"]),
    (["version"], "version", {}, ["lbfast 0.1.0", "pid 4711", "2 workers"]),
]


@pytest.mark.parametrize(("words", "verb", "args", "texts"), VERBS, ids=lambda value: str(value)[:30])
def test_verb(control, tmp_path, words, verb, args, texts):
    said = lbfast(tmp_path, *words)
    assert (said.returncode, said.stderr) == (0, "")
    assert control.asked(verb) == [args]
    for text in texts:
        assert text in said.stdout
    assert "\x1b" not in said.stdout
    assert all(row == row.rstrip() for row in said.stdout.split("\n"))

    as_json = lbfast(tmp_path, *words, "--json")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert json.loads(as_json.stdout) == ANSWERS[verb]
    assert as_json.stdout.isascii()


def test_labels_are_never_obeyed_and_never_cut_in_a_pipe(control, tmp_path):
    said = lbfast(tmp_path, "overview").stdout
    assert said.count('Röntgen [bold]"PACS"[/bold] \\u200fX\\x1b[31m') == 2
    assert "[2001:db8::1]:8443" in said
    assert "patching" in next(row for row in said.splitlines() if "Symphony Server 1" in row)
    events = lbfast(tmp_path, "events").stdout
    assert "\\x1b]0;title\\x07patching" in events


def test_labels_reach_the_server_as_typed(control, tmp_path):
    assert lbfast(tmp_path, "drain", TRICKY, "--", "-a b").returncode == 0
    assert lbfast(tmp_path, "drain", "-vs", "-a b").returncode == 0
    assert [(args["service"], args["real"]) for args in control.asked("drain")] == [(TRICKY, "-a b"), ("-vs", "-a b")]


def test_output_that_cannot_carry_unicode_gets_escapes(control, tmp_path):
    said = lbfast(tmp_path, "overview", PYTHONIOENCODING="ascii")
    assert (said.returncode, said.stderr) == (0, "")
    assert "R\\xf6ntgen" in said.stdout
    assert "~ drain" in said.stdout


@pytest.mark.parametrize(
    ("words", "answer", "lines"),
    [
        (
            ["drain", "symfony", R1],
            ("no_such_service", "x"),
            ['no virtual service "symfony"; did you mean "Symphony"?'],
        ),
        (
            ["drain", VS, "Symphony Server 9"],
            ("no_such_real", "x"),
            ['no real server "Symphony Server 9" in "Symphony"', 'There are: "Symphony Server 1", "Symphony Server 2"'],
        ),
        (["halt", VS, R1], ("busy", "a change is under way\x1b[2J"), ["a change is under way\\x1b[2J"]),
        (["persistence", "show", VS], ("no_persistence", "Symphony keeps no table"), ["Symphony keeps no table"]),
    ],
)
def test_refusals_are_one_line_on_stderr_and_exit_code_1(control, tmp_path, words, answer, lines):
    verb = "_".join(words[:2]) if words[0] == "persistence" else words[0]
    control.answers[verb] = ("error", *answer)
    said = lbfast(tmp_path, *words)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("lbfast: ")
    assert said.stderr.count("\n") == 1
    for line in lines:
        assert line in said.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["explain", VS, "10.1.2"], '"10.1.2" is not an IP address'),
        (["connections", VS, "--client", "10.1.2.3/24"], "the network is 10.1.2.0/24"),
        (["persistence", "pin", VS, "10.1.2.0/24", R1], "is not an IP address"),
        (["weight", VS, R1, "257"], "0 to 256, got 257"),
        (["weight", VS, R1, "-1"], "0 to 256, got -1"),
        (["weight", VS, R1, "much"], '"much"'),
        (["drain", VS], "REAL"),
        (["drain", VS, "Symphony", "Server", "1"], "a label with spaces needs quotes"),
        (["overvew"], 'Unknown command "overvew". Did you mean "overview"? See `lbfast --help`.'),
        (["persistence", "shw", VS], '"show"'),
        (["overview", "--jsn"], "--json"),
        (["events", "--limit", "-1"], "--limit"),
        (["demo", "--port", "70000"], "1 to 65535"),
        (["completion", "tcsh"], "tcsh"),
        (["run"], "--config"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(control, tmp_path, words, text):
    said = lbfast(tmp_path, *words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("lbfast: ")
    assert said.stderr.count("\n") == 1
    assert text in said.stderr
    assert control.requests == []


@pytest.mark.parametrize("words", [["overview"], ["events", "--follow"], ["drain", VS, R1], ["overview", "--json"]])
def test_no_lbfast_running(tmp_path, words):
    said = lbfast(tmp_path, *words)
    assert (said.returncode, said.stdout) == (1, "")
    assert str(tmp_path / "control.sock") in said.stderr
    assert said.stderr.count("\n") == 1


def test_version_without_a_running_lbfast(tmp_path):
    assert lbfast(tmp_path, "version").stdout.splitlines()[1:] == ["not running here"]
    assert json.loads(lbfast(tmp_path, "version", "--json").stdout)["pid"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without the right")
def test_no_permission(control, tmp_path):
    (tmp_path / "control.sock").chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        "import os, sys, lbfast.cli.commands, lbfast.cli.reading\n"  # before the right to read the source is gone
        "from lbfast.cli.app import main\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['overview', '--json']))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 1
    assert "ermission" in said.stderr
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["overview", "--json"], ["explain", VS, "10.1.2.3"], ["drain", VS, R1]])
def test_heavy_libraries_are_not_imported_for_nothing(control, tmp_path, words):
    said = lbfast(tmp_path, *words, PYTHONPROFILEIMPORTTIME="1")
    assert said.returncode == 0
    imported = {row.rsplit("|", 1)[-1].strip().split(".")[0] for row in said.stderr.splitlines()}
    assert "cyclopts" in imported
    assert not imported & {"rich", "pydantic", "textual", "asyncio", "cryptography", "structlog", "pyroute2"}


def test_a_reader_that_has_seen_enough(control, tmp_path):
    control.answers["overview"] = {"virtual_services": OVERVIEW["virtual_services"] * 500}
    with subprocess.Popen(
        [sys.executable, "-m", "lbfast", "overview", "--json"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == ""
        assert child.wait(60) == 0


@pytest.mark.parametrize("json_lines", [False, True])
def test_following_events(control, tmp_path, json_lines):
    words = ["events", "--follow", *(["--json"] if json_lines else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "lbfast", *words], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        rows = [child.stdout.readline() for _ in ANSWERS["events"]["events"]]  # arrives while the stream is open
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    if json_lines:
        assert [json.loads(row) for row in rows] == ANSWERS["events"]["events"]
    else:
        assert rows[0] == "10:00:00 open   10.1.2.3 -> Symphony / Symphony Server 2  (table)\n"
    assert control.asked("events") == [{"follow": True}]


def test_the_end_of_the_stream_is_told(control, tmp_path):
    control.end_streams.set()
    said = lbfast(tmp_path, "events", "--follow")
    assert said.returncode == 1
    assert "ended the stream of events" in said.stderr


def on_terminal(runtime: Path, *words: str, **more: str) -> str:
    """What a command writes to a terminal of 80 columns."""
    primary, secondary = pty.openpty()
    env = environment(runtime, COLUMNS="80", TERM="xterm-256color", **more)
    with subprocess.Popen([sys.executable, "-m", "lbfast", *words], env=env, stdout=secondary) as child:
        os.close(secondary)
        text = b""
        try:
            while chunk := os.read(primary, 65536):
                text += chunk
        except OSError:  # how Linux tells the end of a terminal
            pass
        assert child.wait(60) == 0
    os.close(primary)
    return text.decode()


def test_a_terminal_gets_colours_80_columns_and_reasons_below(control, tmp_path):
    text = on_terminal(tmp_path, "overview")
    assert "\x1b[32m" in text
    assert "● up" in text
    plain = on_terminal(tmp_path, "overview", NO_COLOR="1")
    assert "\x1b" not in plain
    rows = plain.replace("\r", "").splitlines()
    assert max(map(len, rows)) <= 80
    assert "  Symphony Server 1: drained by root at 14:00: patching" in rows
