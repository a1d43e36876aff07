"""Somebody is killed in the middle of an upgrade or a commit: what clients see, what runs afterwards."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from installed import Installed
from live_world import NAMES, Load, commit, named_servers, text_of, unharmed
from servers import TcpServer, connect, read_line

from lbfast.control.client import ControlError, ControlUnavailable

Figure = Callable[[str, str], None]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers() as running:
        yield running


@dataclass
class Stage:
    """An lbfast whose program can be changed; ``next`` is the one that a service manager would start."""

    installed: Installed
    directory: Path
    servers: dict[str, TcpServer]
    port: int
    other: int

    def text(self, *, both: bool = False) -> str:
        reals = [real_server(name, self.servers[name].port) for name in NAMES]
        check = {"type": "connect", "interval": "1s" if both else "2s"}  # so that a commit asks health, too
        ports = f"{self.port},{self.other}" if both else str(self.port)
        return text_of([virtual_service(1, reals, health_check=check) | {"ports": ports}])

    def lbfast(self) -> Lbfast:
        return Lbfast(self.text(), directory=self.directory, env=self.installed.env, allow_stderr=True)


@pytest.fixture
def stage(servers: dict[str, TcpServer]) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="lbfast-") as place:
        folder = Path(place)
        folder.chmod(0o711)  # run by root, the children become another user and have to get here
        (folder / "x").mkdir(mode=0o711)
        yield Stage(Installed(folder / "program"), folder / "x", servers, free_port(), free_port())


def messages(lb: Lbfast) -> list[str]:
    return [it["message"] for it in lb.call("events", limit=1000)["events"] if it["event"] == "process"]


SUPERVISOR_DIES = {
    "after the exec": ("supervisor/supervisor.py", "    try:\n        heritage = adopt_heritage(", False),
    "while new workers come": ("supervisor/relief.py", "        plan.waiting = set(plan.coming)\n", True),
    "while connections change hands": (
        "supervisor/relief.py",
        "        number = self._number\n        self._crew.later(LEAVE_WITHIN",
        False,
    ),
    "while control is replaced": ("supervisor/succession.py", "        coming = self._coming\n", True),
}


@pytest.mark.parametrize("moment", SUPERVISOR_DIES)
def test_the_supervisor_is_killed_in_an_upgrade(stage: Stage, figure: Figure, moment: str) -> None:
    """Workers of both programs go on; the next supervisor takes them all over."""
    with ExitStack() as stack:
        first = stage.lbfast()
        stack.callback(first.clean_up)
        first.start()
        first.wait_ready()
        load = stack.enter_context(Load(stage.port))
        wait_for(lambda: load.visits > 20 and load.exchanges > 20, what="load")
        file, line, after = SUPERVISOR_DIES[moment]
        mark = stage.installed.kill_once(file, line, after=after)
        mark.touch()
        first.process.send_signal(signal.SIGUSR2)
        assert first.wait(60) == -signal.SIGKILL
        assert not mark.exists()
        seen = load.visits
        wait_for(lambda: load.visits > seen + 20, what="clients to go on without a supervisor")
        lb = stack.enter_context(stage.lbfast())
        seen = load.visits
        wait_for(lambda: load.visits > seen + 20, what="new clients")
        load.__exit__(None, None, None)
        unharmed(load)
        wait_for(lambda: any("took over the workers" in it for it in messages(lb)), 60, "the event")
        expected = {"lbfast-worker0", "lbfast-worker1", "lbfast-control", "lbfast-health"}
        wait_for(lambda: set(lb.children()) == expected, 60, "nobody but those who are wanted")
        wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, 20, "all counts")
        figure(f"supervisor killed in an upgrade, {moment}", "0 refused, 0 cut, taken over by the next one")


def test_a_new_worker_is_killed_in_an_upgrade(stage: Stage, figure: Figure) -> None:
    """The old ones go on, and it is tried again."""
    with stage.lbfast() as lb, Load(stage.port) as load:
        mark = stage.installed.kill_once("supervisor/worker.py", "    shared = setup.shared\n")
        mark.touch()
        stage.installed.version("9.9")
        lb.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: lb.call("version")["version"].startswith("9.9+"), 60, "the new version")
        assert not mark.exists()
        assert "the old ones go on" in lb.stderr  # the event was told to the control of before
        seen = load.visits
        wait_for(lambda: load.visits > seen + 20, what="new clients")
    unharmed(load)
    figure("new worker killed in an upgrade", "0 refused, 0 cut; the old ones go on, tried again after 1 s")


COMMIT_DIES = {
    "health while it probes": (
        "health/process.py",
        "    signal.pthread_sigmask(signal.SIG_SETMASK, set())\n",
        "os.getpid()",
    ),
    "a worker that gets listeners": (
        "supervisor/switch.py",
        "                self._post.send(worker, part, fds)\n",
        "worker.pid",
    ),
    "the supervisor that has opened": ("supervisor/switch.py", "        assets.spare += listeners\n", "os.getpid()"),
    "the supervisor that hands out": (
        "supervisor/switch.py",
        "        moved = self._take_over(opened, going)\n",
        "os.getpid()",
    ),
}


@pytest.mark.parametrize("who", COMMIT_DIES)
def test_somebody_is_killed_in_a_commit(stage: Stage, figure: Figure, who: str) -> None:
    """What runs then is the old version or the new one, whole; the same commit again has its effect."""
    with ExitStack() as stack:
        file, line, victim = COMMIT_DIES[who]
        mark = stage.installed.kill_once(file, line, after=True, victim=victim)
        lb = stage.lbfast()
        stack.callback(lb.clean_up)
        lb.start()
        lb.wait_ready()
        load = stack.enter_context(Load(stage.port))
        wait_for(lambda: load.visits > 20 and load.exchanges > 20, what="load")
        mark.touch()
        try:
            commit(lb, stage.text(both=True))
        except (ControlError, ControlUnavailable):
            pass  # whoever asked hears that it is not certain
        wait_for(lambda: not mark.exists(), 20, "the death")
        if who.startswith("the supervisor"):
            assert lb.wait(20) == -signal.SIGKILL
            lb = stack.enter_context(stage.lbfast())
        wait_for(lambda: lb.call("version") and len(lb.children()) == 4, 60, "everybody again")
        load.__exit__(None, None, None)
        lost = len(load.failures)
        assert lost == 0 or who.startswith("a worker"), load.failures
        assert load.split == {}
        commit(lb, stage.text(both=True) + "\n# once more\n")
        for port in (stage.port, stage.other):
            for _ in range(8):
                with connect(port) as sock:
                    assert read_line(sock)
        wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, 20, "all counts")
        lb.stop()
        figure(f"killed in a commit: {who}", f"{lost} connections cut, the next commit has its effect")
