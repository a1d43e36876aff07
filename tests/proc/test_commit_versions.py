"""Versions: history, diff, revert, confirm or revert by itself, the optimistic lock, SIGHUP, and the commands."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from live_world import commit, services_of, text_of, write
from servers import TcpServer, echo_server

from lbfast.control.client import ControlError


@pytest.fixture(scope="module")
def echo() -> Iterator[TcpServer]:
    with echo_server() as server:
        yield server


@pytest.fixture
def port() -> int:
    return free_port()


def text(port: int, echo: TcpServer, **settings: int) -> str:
    return text_of([virtual_service(port, [real_server("R1", echo.port, **settings)])])


@pytest.fixture
def lb(echo: TcpServer, port: int) -> Iterator[Lbfast]:
    with Lbfast(text(port, echo), allow_stderr=True) as running:
        yield running


def weight(lb: Lbfast) -> int:
    return int(services_of(lb)["Symphony"]["real_servers"][0]["weight"])


def version(lb: Lbfast) -> int:
    return int(lb.call("history")["version"])


def test_commands_from_plan_to_revert(lb: Lbfast, port: int, echo: TcpServer) -> None:
    file = write(lb.directory, text(port, echo, weight=30))
    code, out, err = lb.cli("plan", str(file))
    assert (code, err) == (0, "")
    assert "- change 'Symphony' / 'R1': weight" in out
    assert "0 connections cut" in out
    assert "--against 1" in out
    code, out, err = lb.cli("commit", str(file), "--against", "1", "--reason", "less for R1")
    assert (code, err) == (0, "")
    assert "version 2 runs (1 step); before: 1" in out
    assert weight(lb) == 30
    shown = lb.json("history")
    assert [(it["number"], it["running"], it["reason"]) for it in shown["versions"]] == [
        (2, True, "less for R1"),
        (1, False, "given at start"),
    ]
    assert shown["versions"][0]["changes"] == ["change 'Symphony' / 'R1': weight"]
    assert shown["versions"][0]["file"] == str(file)
    assert "+weight = 30" in lb.cli("diff")[1].splitlines()
    assert "-weight = 30" in lb.cli("diff", "2", "1")[1].splitlines()
    code, out, _ = lb.cli("revert")
    assert code == 0
    assert "version 3 runs" in out
    assert weight(lb) == 100
    assert "revert to version 1  (running)" in lb.cli("history")[1]
    assert lb.cli("commit", str(write(lb.directory, text(port, echo))))[1] == "nothing differs from what runs\n"
    assert version(lb) == 3


def test_a_bad_file_is_told_line_by_line_and_changes_nothing(lb: Lbfast, port: int, echo: TcpServer) -> None:
    file = write(lb.directory, text(port, echo, weight=999).replace('label = "Symphony"', "label = 7"))
    code, out, err = lb.cli("commit", str(file))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert all(line.startswith(f"{file}:") for line in err.splitlines())
    code, out, err = lb.cli("plan", str(write(lb.directory, "#" * 1_000_001, "big.toml")))
    assert (code, out) == (2, "")
    assert "big.toml: 1000001 bytes, expected a configuration of at most 1000000" in err
    assert version(lb) == 1


def test_a_commit_against_an_older_version_is_refused_with_the_difference(
    lb: Lbfast, port: int, echo: TcpServer
) -> None:
    commit(lb, text(port, echo, weight=30), against=1)
    with pytest.raises(ControlError, match="is version 2, this was planned against 1") as refusal:
        commit(lb, text(port, echo, weight=40), against=1)
    assert refusal.value.code == "conflict"
    assert "+weight = 30" in refusal.value.message.splitlines()
    assert weight(lb) == 30
    assert commit(lb, text(port, echo, weight=40), against=2)["version"] == 3


def test_a_confirmed_commit_stands(lb: Lbfast, port: int, echo: TcpServer) -> None:
    until = datetime.fromisoformat(commit(lb, text(port, echo, weight=30), confirm=3600)["confirm_until"])
    assert 3500 < (until - datetime.now().astimezone()).total_seconds() <= 3600
    with pytest.raises(ControlError, match="waits to be confirmed"):
        commit(lb, text(port, echo, weight=40))
    assert lb.call("confirm") == {"version": 2}
    assert not (lb.state_dir / "confirm.json").exists()
    with pytest.raises(ControlError, match="nothing waits"):
        lb.call("confirm")
    assert commit(lb, text(port, echo, weight=40))["version"] == 3


def test_a_commit_that_is_not_confirmed_reverts_by_itself(lb: Lbfast, port: int, echo: TcpServer) -> None:
    commit(lb, text(port, echo, weight=30), confirm=5)  # from its beginning: time to look at what it did
    assert weight(lb) == 30
    wait_for(lambda: weight(lb) == 100, 20, "the revert")
    wait_for(lambda: lb.call("history")["unconfirmed"] is None, what="its end")
    newest = lb.call("history")["versions"][0]
    assert (newest["number"], newest["by"]) == (3, "lbfast")
    assert newest["reason"] == "version 2 was not confirmed"


def test_it_reverts_also_when_control_died_in_between(lb: Lbfast, port: int, echo: TcpServer) -> None:
    commit(lb, text(port, echo, weight=30), confirm=2)
    old = lb.child("control")
    os.kill(old, signal.SIGKILL)
    lb.wait_replaced("control", old)
    wait_for(lambda: lb.call("version"), what="control")
    wait_for(lambda: weight(lb) == 100, what="the revert")
    assert version(lb) == 3


def test_it_reverts_also_when_everything_was_restarted(tmp_path: Path, port: int, echo: TcpServer) -> None:
    directory = tmp_path / "x"
    directory.mkdir()
    first, second = text(port, echo), text(port, echo, weight=30)
    with Lbfast(first, directory=directory, allow_stderr=True) as lb:
        write(directory, second, "lbfast.toml")
        assert lb.cli("commit", str(lb.config_path), "--confirm", "24h")[0] == 0
        kept = json.loads((lb.state_dir / "confirm.json").read_text())
    # The deadline passes while nothing runs; a clock that jumped back must not stretch it either.
    (directory / "state/confirm.json").write_text(json.dumps(kept | {"length": 0.5}))
    with Lbfast(second, directory=directory, allow_stderr=True) as lb:
        wait_for(lambda: weight(lb) == 100, what="the revert")
        assert version(lb) == 3


def test_a_start_makes_a_version_only_of_what_is_new(tmp_path: Path, port: int, echo: TcpServer) -> None:
    directory = tmp_path / "x"
    directory.mkdir()
    for given, expected in (({}, 1), ({}, 1), ({"weight": 5}, 2), ({"weight": 5}, 2)):
        with Lbfast(text(port, echo, **given), directory=directory, allow_stderr=True) as lb:
            assert version(lb) == expected
    names = sorted(path.name for path in (directory / "state/versions").iterdir())
    assert names == ["000001.json", "000001.toml", "000002.json", "000002.toml"]


def test_sighup_commits_the_file_given_at_start(lb: Lbfast, port: int, echo: TcpServer) -> None:
    write(lb.directory, text(port, echo, weight=30), "lbfast.toml")
    lb.process.send_signal(signal.SIGHUP)
    wait_for(lambda: weight(lb) == 30, what="the commit")
    assert lb.call("history")["versions"][0]["by"] == "SIGHUP"
    write(lb.directory, "nonsense =", "lbfast.toml")

    def refused() -> bool:
        lb.process.send_signal(signal.SIGHUP)  # again and again: the first commit may not have ended yet
        return f"was not committed: {lb.config_path}:1:" in lb.stderr

    wait_for(refused, what="the refusal with its place")
    assert version(lb) == 2


def test_a_state_directory_that_cannot_be_written_refuses(lb: Lbfast, port: int, echo: TcpServer) -> None:
    versions = lb.state_dir / "versions"
    versions.rename(lb.state_dir / "elsewhere")
    versions.write_text("not a directory")
    with pytest.raises(ControlError, match="nothing was changed"):
        commit(lb, text(port, echo, weight=30))
    assert weight(lb) == 100
    versions.unlink()
    (lb.state_dir / "elsewhere").rename(versions)
    assert commit(lb, text(port, echo, weight=30))["version"] == 2
    assert weight(lb) == 30


def test_the_log_follows(lb: Lbfast, port: int, echo: TcpServer) -> None:
    log = lb.directory / "records.log"
    log.touch()
    log.chmod(0o666)  # run by root, control is another user
    services = [virtual_service(port, [real_server("R1", echo.port)])]
    commit(lb, text_of(services, log={"target": "file", "file": str(log)}), reason="a log file")
    lb.call("weight", service="Symphony", real="R1", weight=3)
    wait_for(lambda: "weight 3" in log.read_text(), what="the record in the new log")
