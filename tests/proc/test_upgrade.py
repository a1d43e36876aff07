"""The installed program takes over in place: every connection kept; one that does not work changes nothing."""

from __future__ import annotations

import signal
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Lbfast, fd_census, free_port, is_running, real_server, virtual_service, wait_for
from installed import Installed
from live_world import NAMES, Load, commit, named_servers, text_of, unharmed
from servers import TcpServer, connect, read_line
from waiting import children_of

from lbfast.control.client import Client, ControlError


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers() as running:
        yield running


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "program")


@pytest.fixture
def lb(installed: Installed, servers: dict[str, TcpServer], port: int) -> Iterator[Lbfast]:
    service = virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])
    with Lbfast(text_of([service]), env=installed.env, allow_stderr=True) as running:
        yield running


def upgrade(lb: Lbfast, **args: Any) -> Any:
    return Client(lb.runtime_dir / "control.sock", timeout=120).call("upgrade", **args)


def live(lb: Lbfast, client: str) -> dict[str, tuple[Any, ...]]:
    """Connections of a client by id: what they are, apart from who has them."""
    found = lb.call("connections", service="Symphony", client=client)["connections"]
    return {it["id"]: (it["client_port"], it["real"], datetime.fromisoformat(it["opened"]).timestamp()) for it in found}


def much_like(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """To compare with: the time of the opening is worked out anew at each look, from two clocks."""
    return {id_: (*what, pytest.approx(opened, abs=0.5)) for id_, (*what, opened) in found.items()}


def messages(lb: Lbfast) -> list[str]:
    return [it["message"] for it in lb.call("events", limit=1000)["events"] if it["event"] == "process"]


def test_a_new_version_takes_over_and_nobody_notices(lb: Lbfast, installed: Installed, port: int) -> None:
    before, pid = lb.children(), lb.pid
    with connect(port, source="127.9.9.9") as sock, Load(port) as load:
        name = read_line(sock)
        kept = much_like(live(lb, "127.9.9.9"))
        lb.call("drain", service="Symphony", real="R2", reason="patching")
        lb.call("persistence_pin", service="Symphony", client="10.9.8.7", real="R3")
        accepted = sum(it["accepted"] for it in lb.call("statistics")["workers"])
        installed.version("9.9")
        result = upgrade(lb)
        assert result["version"].startswith("9.9+")
        assert result["workers"] == 2
        assert lb.call("version")["version"].startswith("9.9+")
        sock.sendall(b"after\n")
        assert read_line(sock) == b"after\n"
        assert live(lb, "127.9.9.9") == kept
        entry = lb.call("persistence_show", service="Symphony", client="127.9.9.9")["entries"][0]
        assert (entry["real"], entry["connections"]) == (name.decode().strip(), 1)
        assert sum(it["accepted"] for it in lb.call("statistics")["workers"]) >= accepted
        seen = load.visits
        wait_for(lambda: load.visits > seen + 10, what="new clients")
    unharmed(load)
    assert lb.pid == pid
    reals = {it["label"]: it for it in lb.call("overview")["virtual_services"][0]["real_servers"]}
    assert (reals["R2"]["admin"], reals["R1"]["state"]) == ("drain", "up")
    pinned = lb.call("persistence_show", service="Symphony", client="10.9.8.7")["entries"][0]
    assert (pinned["real"], pinned["pinned"]) == ("R3", True)
    wait_for(lambda: not any(is_running(old) for old in before.values()), what="the old processes to end")
    assert {name: len(fd_census(child)) for name, child in lb.children().items()}.keys() == before.keys()
    wait_for(lambda: any("upgraded from lbfast" in text for text in messages(lb)), what="the event")
    wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, what="all counts to be given back")


def test_commits_and_upgrades_by_turns(
    lb: Lbfast, installed: Installed, servers: dict[str, TcpServer], port: int
) -> None:
    """What a commit made is there after an upgrade, and can be changed after it."""
    other = free_port()
    service = virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])
    two = text_of([service | {"ports": f"{port},{other}"}], workers=3)
    with Load(port) as load:
        commit(lb, two)
        upgrade(lb)
        assert lb.call("version")["workers"] == 3
        with connect(other) as sock:
            assert read_line(sock)
        assert lb.call("history")["version"] == 2
        commit(lb, text_of([service], workers=2))
        upgrade(lb)
        assert lb.call("version")["workers"] == 2
        with pytest.raises(OSError):
            connect(other)
    unharmed(load)


def test_sigusr2_upgrades(lb: Lbfast, installed: Installed, port: int) -> None:
    with Load(port) as load:
        installed.version("9.9")
        lb.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: lb.call("version")["version"].startswith("9.9+"), 60, "the new version")
    unharmed(load)


BROKEN = {
    "does not parse": ("supervisor/supervisor.py", "def run(", "def run(:"),
    "cannot be imported": ("supervisor/life.py", "import selectors\n", "import selectors\nimport no_such_module\n"),
    "does not know the memory": ("health/results.py", "VERSION = 1", "VERSION = 7"),
    "refuses the configuration": (
        "config/candidate.py",
        "    loaded = parse(",
        "    loaded = parse('workers = 0\\n' + ",
    ),
    "has a broken worker": ("supervisor/worker.py", "    shared = setup.shared\n", "    raise SystemExit(3)\n"),
    "has a broken control": ("control/process.py", "        server = ControlServer(", "        server = int("),
    "has a broken health": ("health/process.py", "    asyncio.run(", "    raise SystemExit(4)\n    asyncio.run("),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_program_that_does_not_work_changes_nothing(lb: Lbfast, installed: Installed, port: int, what: str) -> None:
    before = lb.children()
    with Load(port) as load:
        installed.edit(*BROKEN[what])
        with pytest.raises(ControlError, match="not upgraded: the new program does not") as refusal:
            upgrade(lb)
        assert refusal.value.code == "refused"
        seen = load.visits
        wait_for(lambda: load.visits > seen + 10, what="clients to go on")
    unharmed(load)
    assert lb.children() == before
    assert any("not upgraded, everything is as before" in text for text in messages(lb))
    assert "not upgraded" in lb.stderr


MORE_BROKEN = {
    "web": ("web/process.py", "    state = open_state(", "    raise OSError(28, 'not today')\n    state = open_state("),
    "ha": ("ha/process.py", "import annotations\n", "import annotations\n\nimport nothing\n"),
}


@pytest.mark.parametrize("what", MORE_BROKEN)
def test_a_program_whose_web_or_ha_does_not_work_changes_nothing(
    installed: Installed, servers: dict[str, TcpServer], port: int, what: str
) -> None:
    service = virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])
    web = {"address": "127.0.0.1", "port": free_port(), "tls": False}
    with Lbfast(text_of([service], web=web), env=installed.env, allow_stderr=True) as lb, connect(port) as sock:
        name = read_line(sock)
        before = lb.children()
        if what == "ha":  # the next program will have something to do for it
            (lb.state_dir / "pair_password.json").write_text("{}")
        installed.edit(*MORE_BROKEN[what])
        with pytest.raises(ControlError, match=f"not upgraded: .*{what}"):
            upgrade(lb)
        assert lb.children() == before
        sock.sendall(name)
        assert read_line(sock) == name
        (lb.state_dir / "pair_password.json").unlink(missing_ok=True)


def test_a_program_that_hangs_is_given_up(lb: Lbfast, installed: Installed, port: int) -> None:
    before = children_of(lb.pid)
    installed.edit("supervisor/trial.py", "    ensure_dir(", "    time.sleep(1000)\n    ensure_dir(")
    with pytest.raises(ControlError, match="did not come up in time"):
        upgrade(lb, within=1)
    assert children_of(lb.pid) == before
    assert lb.call("version")


def test_the_command_line_upgrades(lb: Lbfast, installed: Installed) -> None:
    installed.version("9.9")
    code, out, err = lb.cli("upgrade", timeout=90)
    assert (code, err) == (0, "")
    assert out.startswith("lbfast 9.9+")
    assert out.endswith("2 workers replaced\n")
    installed.edit("__init__.py", '__version__ = "', 'raise RuntimeError("not today")\n__version__ = "')
    code, out, err = lb.cli("upgrade", timeout=90)
    assert code == 1
    assert "not today" in err


def test_nothing_piles_up_over_upgrades(lb: Lbfast, port: int) -> None:
    upgrade(lb)
    upgrade(lb)
    before = census(lb)
    for _ in range(3):
        upgrade(lb)
    # A look can meet the control socket's end of the look before it.
    wait_for(lambda: not Counter(census(lb)) - Counter(before), 20, f"descriptors as before: {before}")


def census(lb: Lbfast) -> dict[str, int]:
    """Descriptors of each process once nothing moves; health opens some for each probe."""

    def count() -> dict[str, int]:
        counts = {name: len(fd_census(pid)) for name, pid in lb.children().items() if "health" not in name}
        return counts | {"supervisor": len(fd_census(lb.pid))}

    seen = count()
    while True:
        time.sleep(0.3)  # between two looks
        now = count()
        if now == seen:
            return now
        seen = now


def test_stop_after_an_upgrade_leaves_nothing(lb: Lbfast) -> None:
    upgrade(lb)
    lb.process.send_signal(signal.SIGTERM)
    assert lb.wait() == 0
    assert list(lb.runtime_dir.iterdir()) == []


@pytest.mark.parametrize("victim", ["worker0", "worker1", "control", "health"])
def test_somebody_is_killed_in_the_middle(lb: Lbfast, installed: Installed, port: int, victim: str) -> None:
    """Killed by the new program's own hand right after it has taken over: it serves, and everybody is there again."""
    kill = textwrap.dedent("""
        import os, signal
        for child in heritage.children:
            if child.name.replace(" ", "") == "VICTIM":
                os.kill(child.pid, signal.SIGKILL)
    """).replace("VICTIM", victim)
    installed.edit(
        "supervisor/life.py",
        "        self._state = State.RUNNING\n        self._news.waiting",
        textwrap.indent(kill, "        ") + "        self._state = State.RUNNING\n        self._news.waiting",
    )
    socks = [connect(port, source=f"127.8.0.{host}") for host in range(1, 41)]
    for sock in socks:
        read_line(sock)
    lb.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: any("upgraded" in text for text in messages(lb)), 60, "the upgrade")
    wait_for(lambda: lb.call("version") and len(lb.children()) == 4, what="everybody")
    alive = 0
    for sock in socks:
        with sock:
            try:
                sock.sendall(b"ping\n")
                alive += read_line(sock) == b"ping\n"
            except OSError:
                pass
    assert alive == 40 if victim in ("control", "health") else 0 < alive < 40
    with connect(port) as sock:
        assert read_line(sock)
    wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, what="all counts to be given back")
