"""A running lbfast started by root: who its processes are, what they can still do, and what is refused at the start."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Lbfast, free_port, real_server, render_toml, virtual_service, wait_for
from servers import TcpServer, connect, echo_server, read_line

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

USER = "daemon"  # every Debian has it, and nothing runs as it
UID = 1


@pytest.fixture
def echo() -> Iterator[TcpServer]:
    with echo_server() as server:
        yield server


def config(echo: TcpServer, **more: Any) -> dict[str, Any]:
    check = more.pop("health_check", {"type": "none"})
    service = virtual_service(free_port(), [real_server("R1", echo.port)], health_check=check)
    return {"user": USER, "workers": 2} | more | {"virtual_service": [service]}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def messages(lb: Lbfast) -> list[str]:
    return [event["message"] for event in lb.call("events")["events"] if "message" in event]


def say(lb: Lbfast, port: int) -> None:
    with connect(port) as sock:
        sock.sendall(b"hello\n")
        assert read_line(sock) == b"hello\n"


def port_of(lb: Lbfast) -> int:
    return int(lb.call("overview")["virtual_services"][0]["ports"])


def test_all_children_are_that_user_without_anything(echo: TcpServer) -> None:
    with Lbfast(config(echo)) as lb:
        for name, pid in lb.children().items():
            found = status_of(pid)
            assert found["Uid"].split() == [str(UID)] * 4, name
            assert found["Gid"].split() == [str(UID)] * 4, name
            assert found["Groups"] == "", name
            may = 1 << 24 if "worker" in name else 0  # CAP_SYS_RESOURCE, where this machine's root has it
            assert int(found["CapPrm"], 16) | may == may, name
            assert int(found["CapBnd"], 16) | may == may, name
            assert found["NoNewPrivs"] == "1", name
            assert found["Seccomp"] == ("2" if "worker" in name else "0"), name
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core")] == ["0"], name
        assert status_of(lb.pid)["Uid"].split() == ["0"] * 4
        assert not any("run as" in message for message in messages(lb))


def test_files(echo: TcpServer) -> None:
    with Lbfast(config(echo)) as lb:
        lb.call("drain", service="Symphony", real="R1", reason="to have a state file")
        state = lb.state_dir.stat()
        assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (0, UID, 0o1770)
        for path in (lb.state_dir / "state.json", lb.state_dir / "ids.json", *(lb.state_dir / "versions").iterdir()):
            assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (UID, 0o600), path
        assert (lb.runtime_dir / "children.json").stat().st_uid == 0
        socket_file = (lb.runtime_dir / "control.sock").stat()
        assert socket_file.st_uid == UID  # lbfast's own processes use it, too
        assert not stat.S_IMODE(socket_file.st_mode) & 0o002 or _has_report_group()


def _has_report_group() -> bool:
    return any(line.startswith("lbfast-report:") for line in Path("/etc/group").read_text().splitlines())


def test_every_child_is_replaced_by_its_like(echo: TcpServer) -> None:
    with Lbfast(config(echo), allow_stderr=True) as lb:
        port = port_of(lb)
        for name in ("worker0", "worker1", "control", "health"):
            old = lb.child(name)
            os.kill(old, signal.SIGKILL)
            new = lb.wait_replaced(name, old)
            wait_for(lambda pid=new: status_of(pid)["Uid"].split() == [str(UID)] * 4, 10, f"{name} to give up root")
        wait_for(lambda: lb.call("version"), 10, "control to answer")
        say(lb, port)


def test_a_check_script_is_that_user_in_an_empty_environment(echo: TcpServer) -> None:
    with Lbfast(config(echo), allow_stderr=True) as lb:
        script = lb.directory / "check.sh"
        words = 'echo "uid $(id -u) gid $(id -g) groups $(id -G) HOME=$HOME umask $(umask)" >&2; exit 1'
        script.write_text(f"#!/bin/sh\n{words}\n")
        script.chmod(0o755)
        check = {"type": "external", "script": str(script), "interval": "200ms", "timeout": "5s", "fall": 1}
        _commit_check(lb, echo, check)
        reason = wait_for(lambda: _reason(lb, "uid"), 15, "the script's words")
        assert f"uid {UID} gid {UID} groups {UID} HOME= umask 0027" in reason


def _commit_check(lb: Lbfast, echo: TcpServer, check: dict[str, Any]) -> None:
    changed = config(echo, health_check=check)
    changed["virtual_service"][0]["ports"] = str(port_of(lb))
    lb.call("commit", text=render_toml(changed), file="changed")


def _reason(lb: Lbfast, word: str) -> str:
    results = lb.call("health", service="Symphony", real="R1")["results"]
    return next((result["reason"] for result in results if word in result["reason"]), "")


def test_sighup_commits_a_file_that_only_root_can_read(echo: TcpServer) -> None:
    with Lbfast(config(echo), allow_stderr=True) as lb:
        lb.config_path.chmod(0o600)
        lb.config_path.write_text(lb.config_path.read_text().replace('"R1"', '"R1 renamed"'))
        os.kill(lb.pid, signal.SIGHUP)
        wait_for(lambda: lb.call("history")["version"] == 2, 15, "the commit")
        assert lb.call("overview")["virtual_services"][0]["real_servers"][0]["label"] == "R1 renamed"


def test_a_log_that_the_user_cannot_write_refuses_the_commit(echo: TcpServer) -> None:
    with Lbfast(config(echo)) as lb:
        before = lb.config_path.read_text()
        log = lb.directory / "records.log"
        changed = before.replace("[[virtual", _LOG.format(log) + "[[virtual", 1)
        code, _, err = lb.cli("commit", _written(lb, changed))
        assert code != 0
        assert f'found "{log}"' in err
        assert f"a file that {USER} may write to, or a directory where it may make one" in err
        assert lb.call("history")["version"] == 1
        log.touch()
        os.chown(log, UID, UID)
        assert lb.cli("commit", _written(lb, changed))[0] == 0
        say(lb, port_of(lb))
        wait_for(lambda: '"event":"open"' in log.read_text(), 10, "the record")


def _written(lb: Lbfast, text: str) -> str:
    path = lb.directory / "changed.toml"
    path.write_text(text)
    return str(path)


def test_the_log_file_of_the_start_is_given_and_followed(echo: TcpServer) -> None:
    """As logrotate does it: moved away, made anew for that user."""
    given = config(echo)
    with _logging(given) as (lb, log):
        assert (log.stat().st_uid, stat.S_IMODE(log.stat().st_mode)) == (UID, 0o640)
        port = port_of(lb)
        say(lb, port)
        wait_for(lambda: '"event":"open"' in log.read_text(), 10, "the record")
        moved = log.with_suffix(".1")
        log.rename(moved)
        size = moved.stat().st_size
        say(lb, port)
        wait_for(lambda: moved.stat().st_size > size, 10, "the record in the file that was moved away")
        made = log.with_suffix(".new")
        made.touch()
        os.chown(made, UID, UID)
        made.rename(log)  # a record meanwhile must not find a file that is still root's
        say(lb, port)
        wait_for(lambda: '"event":"open"' in log.read_text(), 10, "the record in the new file")
        assert not any("cannot write the log" in message for message in messages(lb))


@contextmanager
def _logging(given: dict[str, Any]) -> Iterator[tuple[Lbfast, Path]]:
    """A running lbfast that logs to a file in its own directory."""
    lb = Lbfast("")
    log = lb.directory / "records.log"
    lb.config_path.write_text(render_toml(given).replace("[[virtual", _LOG.format(log) + "[[virtual", 1))
    with lb:
        yield lb, log


_LOG = '[log]\ntarget = "file"\nfile = "{}"\n\n'


def refused(given: dict[str, Any]) -> str:
    lb = Lbfast(given, allow_stderr=True)
    try:
        lb.start()
        assert lb.wait() == 2
        return lb.stderr
    finally:
        lb.clean_up()


def test_a_user_that_is_not_there(echo: TcpServer) -> None:
    said = refused(config(echo, user="lbfast-nobody-has-this"))
    assert 'user: found "lbfast-nobody-has-this", expected a user that this machine has' in said


def test_a_group_that_is_not_there(echo: TcpServer) -> None:
    said = refused(config(echo, control={"report_group": "lbfast-nobody"}))
    assert 'control . report_group: found "lbfast-nobody", expected a group that this machine has' in said


def test_a_script_that_the_user_cannot_execute(echo: TcpServer, tmp_path: Path) -> None:
    script = tmp_path / "check.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    said = refused(config(echo, health_check={"type": "external", "script": str(script)}))
    assert f"health_check . script: found {script}, which {USER} may not execute (-rwx------)" in said


def test_a_closed_state_directory(echo: TcpServer, tmp_path: Path) -> None:
    """Refused where a user was asked for; otherwise control stays root, and that is said."""
    given = config(echo)
    lb = Lbfast(given, directory=tmp_path, allow_stderr=True)
    lb.start()
    try:
        assert lb.wait() == 2
        assert f'user: found "{USER}", who cannot reach {tmp_path}/state' in lb.stderr
    finally:
        lb.clean_up()
    del given["user"]
    with Lbfast(given, directory=tmp_path, allow_stderr=True) as lb:
        assert any("control runs as root, because" in message for message in messages(lb))
        assert status_of(lb.child("control"))["Uid"].split() == ["0"] * 4
        assert int(status_of(lb.child("control"))["CapEff"], 16) == 1 << 1  # CAP_DAC_OVERRIDE
        assert status_of(lb.child("health"))["Uid"].split()[0] != "0"
        lb.call("drain", service="Symphony", real="R1")


def test_root_if_the_configuration_says_so(echo: TcpServer) -> None:
    with Lbfast(config(echo, user="root")) as lb:
        assert "all processes run as root: the configuration says so" in messages(lb)
        for name, pid in lb.children().items():
            assert status_of(pid)["Uid"].split() == ["0"] * 4, name
            assert int(status_of(pid)["CapEff"], 16) | 1 << 24 == 1 << 24, name
        say(lb, port_of(lb))
