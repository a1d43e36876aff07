"""The control process itself, forked with a real channel and real shared memory."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import json_lines
from waiting import wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))  # the services are shared with the unit tests
from control_world import SERVICES

from lbfast.config.layout import Layout, plan_layout
from lbfast.config.publish import publish
from lbfast.control.client import Client, ControlUnavailable
from lbfast.control.process import run_control
from lbfast.model.appliance import Config
from lbfast.model.state import Admin
from lbfast.supervisor.channel import Channel
from lbfast.supervisor.seats import Seats, make_counters
from lbfast.supervisor.shared import Shared, create_shared

VS, R1 = "Symphony", "Symphony Server 1"


class Control:
    """A control process that a test starts, restarts and ends."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "lb.log"
        self.errors = directory / "stderr"
        log = {"target": "file", "file": str(self.log)}
        self.config = Config.model_validate({"virtual_service": SERVICES, "log": log})
        self.layout: Layout = plan_layout(self.config)
        self.shared: Shared = create_shared(self.config, self.layout, make_counters())
        self.seats = Seats(self.shared, 64)
        self.seats.take(0)
        publish(self.shared.table, self.config, self.layout)
        self.client = Client(directory / "run" / "control.sock")
        self.pid = 0
        self.channel: Channel | None = None

    def beside(self) -> Control:
        """Another control process for the same memory and places."""
        other = copy.copy(self)
        other.pid, other.channel = 0, None
        return other

    def start(self) -> None:
        ours, theirs = Channel.pair()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                ours.close()
                sys.stderr = open(self.errors, "a")  # noqa: SIM115, for the life of the process
                code = run_control("/etc/lbfast.toml", self.config, self.layout, self.shared, theirs)
            finally:
                os._exit(code)
        theirs.close()
        self.channel = ours

    def ready(self) -> None:
        self.start()
        assert self.channel is not None
        assert self.channel.receive(10) == {"event": "ready"}

    def send(self, message: dict[str, Any]) -> None:
        assert self.channel is not None
        self.channel.send(message)

    def end(self) -> int:
        pid, self.pid = self.pid, 0
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        return code

    def records(self) -> list[Any]:
        return json_lines(self.log)

    def messages(self) -> list[str]:
        return [record.get("message", "") for record in self.records()]

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self.shared.health_wake)
        os.close(self.shared.ring_wake)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path)
    yield control
    control.close()


def test_ready_then_answers_then_stops(control: Control) -> None:
    control.ready()
    version = control.client.call("version")
    assert (version["pid"], version["config"]) == (os.getpid(), "/etc/lbfast.toml")
    control.send({"do": "stop"})
    assert control.end() == 0
    assert not control.client.path.exists()
    assert control.errors.read_text() == ""


def test_sigterm_ends_it_too(control: Control) -> None:
    control.ready()
    os.kill(control.pid, signal.SIGTERM)
    assert control.end() == 0


def test_a_halt_survives_the_kill_of_control(control: Control) -> None:
    control.ready()
    control.client.call("halt", service=VS, real=R1, reason="broken")
    os.kill(control.pid, signal.SIGKILL)
    assert control.end() == -signal.SIGKILL
    with pytest.raises(ControlUnavailable, match="nobody answers"):
        control.client.call("version")
    slot = control.layout.reals[VS, R1]
    control.shared.table.set_admin(slot, Admin.ONLINE)  # as after a restart of everything
    control.ready()  # the stale socket is replaced
    assert control.shared.table.real(slot)["admin"] == Admin.HALT
    shown = control.client.call("overview")["virtual_services"][0]["real_servers"][0]
    assert (shown["state"], shown["reason"].endswith("broken")) == ("halt", True)


def test_events_of_other_processes_reach_stream_and_log(control: Control) -> None:
    control.ready()
    stream = control.client.stream("events", follow=True, limit=10)
    control.send({"event": "health", "service": 0, "real": 1, "message": "down: connect refused"})
    event = next(stream)
    assert event.pop("at")
    assert event == {
        "event": "health",
        "service": VS,
        "real": "Symphony Server 2",
        "message": "down: connect refused",
    }
    control.send({"event": "process", "message": "worker 1 died (signal 9), 12 connections lost"})
    assert next(stream)["event"] == "process"
    stream.close()  # type: ignore[attr-defined]
    wait_for(lambda: len(control.records()) == 2)
    assert control.messages()[1].startswith("worker 1 died")


def test_goes_on_without_the_supervisor(control: Control) -> None:
    control.ready()
    assert control.channel is not None
    control.channel.close()
    control.channel = None
    wait_for(lambda: "the supervisor is gone; traffic and the control socket go on" in control.messages())
    assert control.client.call("drain", service=VS, real=R1)["state"] == "checking"
    os.kill(control.pid, signal.SIGTERM)
    assert control.end() == 0


def test_sighup_reopens_the_log(control: Control) -> None:
    control.ready()
    control.client.call("drain", service=VS, real=R1)
    wait_for(lambda: len(control.records()) == 1)
    os.rename(control.log, control.log.with_suffix(".1"))
    os.kill(control.pid, signal.SIGHUP)
    control.client.call("online", service=VS, real=R1)
    wait_for(lambda: len(control.records()) == 1)
    assert control.messages() == ["online by root"]


def test_a_log_that_cannot_be_written_is_said_and_stops_nothing(control: Control) -> None:
    control.log.mkdir()
    control.ready()
    control.client.call("drain", service=VS, real=R1)

    def told() -> bool:
        events = control.client.call("events")["events"]
        return any("Is a directory; traffic goes on" in event["message"] for event in events)

    wait_for(told)
    control.log.rmdir()
    control.send({"do": "stop"})
    assert control.end() == 0


def test_a_damaged_state_file_is_said_and_the_start_goes_on(control: Control, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text("torn")
    control.ready()
    assert "is damaged" in control.errors.read_text()
    assert "is damaged" in control.client.call("events")["events"][0]["message"]


def test_start_fails_clearly_when_another_answers(control: Control) -> None:
    control.ready()
    second = control.beside()
    second.start()
    assert second.end() == 2
    assert "cannot start" in control.errors.read_text()
    assert "another lbfast answers there" in control.errors.read_text()
    assert control.client.call("version")


def test_start_fails_clearly_when_the_directory_cannot_be_made(control: Control, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    control.start()
    assert control.end() == 2
    assert "lbfast control: cannot start: [Errno 17] File exists" in control.errors.read_text()
