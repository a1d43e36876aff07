"""The wall clock jumps, or a process may have no more memory: on real processes, under load."""

from __future__ import annotations

import os
import re
import resource
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from faults_world import Held, World, world
from harness import is_running, wait_for
from load_clients import Load

from lbfast.control.client import ControlError, ControlUnavailable

Figure = Callable[[str, str], None]
CROWD = [f"127.0.65.{host}" for host in range(1, 13)]
DAY = 86_400
SOURCE = Path(__file__).with_name("jumping_clock.c")


def test_the_wall_clock_jumps(tmp_path: Path, figure: Figure) -> None:
    """A day on, two back, home again: nobody is cut, moved or killed, and a drain's deadline is not put off."""
    shim, jump = tmp_path / "jump.so", tmp_path / "jump"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(SOURCE)], check=True)
    shim.chmod(0o755)
    jump.write_bytes(struct.pack("l", 0))
    jump.chmod(0o644)
    env = {"LD_PRELOAD": str(shim), "JUMP_FILE": str(jump)}
    check = {"type": "connect", "interval": "200ms", "timeout": "200ms"}
    with world(tmp_path, lbfast={"env": env}, health_check=check) as stage, ExitStack() as stack:
        held = Held(stack, stage.port, "127.0.66.1")
        before = stage.lb.children()
        with Load(stage.port, CROWD) as load:
            load.wait_more(50)
            for seconds in (DAY, -DAY, 0):
                with jump.open("r+b") as file:
                    file.write(struct.pack("l", seconds))
                wait_for(lambda: _is_logged_at(stage, seconds), 20, "records by the clock that jumped")  # noqa: B023
                load.wait_more(100)
                assert {it["state"] for it in stage.service()["real_servers"]} == {"up"}
        assert load.failures == []
        assert all(len(met) == 1 for met in load.met.values()), "a client was moved"
        assert held.is_alive()
        assert Held(stack, stage.port, "127.0.66.1").name == held.name
        assert stage.lb.children() == before, "somebody was killed for the clock's sake"
        figure("wall clock jumps a day on, two back", "0 connections lost, 0 clients moved, 0 processes replaced")


def _is_logged_at(stage: World, seconds: int) -> bool:
    records = [record for record in stage.log()[-5:] if "at" in record]
    now = datetime.now().timestamp() + seconds
    return any(abs(datetime.fromisoformat(record["at"]).timestamp() - now) < DAY / 4 for record in records)


def test_control_may_have_no_more_memory(tmp_path: Path, figure: Figure) -> None:
    """What it asks for is refused by the kernel: it goes on or is replaced, and no client knows."""
    with world(tmp_path) as stage, Load(stage.port, CROWD) as load:
        load.wait_more(50)
        old = stage.lb.child("control")
        resource.prlimit(old, resource.RLIMIT_AS, (_size(old), resource.RLIM_INFINITY))
        for _ in range(20):
            try:
                stage.lb.call("persistence_show", service="Symphony", limit=1000)
            except (ControlError, ControlUnavailable):
                continue
        load.wait_more(300)
        is_old = is_running(old)
        if is_old:
            resource.prlimit(old, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_for(lambda: _answers(stage), 20, "verbs")
        load.wait_more(50)
        assert load.failures == []
        how = "went on" if is_old else "was replaced"
        figure("no more memory for control", f"0 of {load.done} connections lost; it {how}")


@pytest.mark.parametrize("name", ["worker0", "health"])
def test_worker_or_health_may_have_no_more_memory(tmp_path: Path, name: str, figure: Figure) -> None:
    """Connections of moderate size need none; whoever dies of it is replaced, and only a worker's own are cut."""
    with world(tmp_path) as stage, Load(stage.port, CROWD) as load:
        load.wait_more(50)
        old = stage.lb.child(name)
        _limit(old, str(_size(old)))
        load.wait_more(300)
        assert {it["state"] for it in stage.service()["real_servers"]} == {"up"}
        is_old = is_running(old)
        if is_old:
            _limit(old, "unlimited")
        load.wait_more(50)
        assert load.failures == []
        how = "went on" if is_old else "was replaced"
        figure(f"no more memory for {name}", f"0 of {load.done} connections lost; it {how}")


def _limit(pid: int, size: str) -> None:
    """As the user of that process, who may do so without further rights."""
    status = Path(f"/proc/{pid}/status").read_text()
    ids = [re.search(rf"{kind}:\s*(\d+)", status)[1] for kind in ("Uid", "Gid")]  # type: ignore[index]
    become = ["setpriv", "--reuid", ids[0], "--regid", ids[1], "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*become, "prlimit", "--pid", str(pid), f"--as={size}:unlimited"], check=True)


def _size(pid: int) -> int:
    found = re.search(r"VmSize:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def _answers(stage: World) -> bool:
    try:
        return bool(stage.lb.call("overview"))
    except (ControlError, ControlUnavailable, OSError):
        return False
