"""State files spoiled by a crash or a bad disk, and a disk that is full or cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from faults_world import Held, world
from harness import wait_for
from live_world import commit, write

from lbfast.control.client import ControlError

Figure = Callable[[str, str], None]
GARBAGE = {
    "empty": b"",
    "torn": b'{"version": 1, "admin": {"x": {"sta',
    "binary": os.urandom(200),
    "another": b'{"version": 99, "surprise": [1, 2]}',
    "nested": b"[" * 20_000,
}
STATE = ("state.json", "ids.json", "confirm.json", "addresses.json", "removals.json")


@pytest.mark.parametrize("kind", GARBAGE)
def test_every_damaged_file_is_kept_aside_told_and_no_reason_not_to_start(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "x"
    (directory / "state/versions").mkdir(parents=True)
    (directory / "run").mkdir()
    files = [directory / "state" / name for name in STATE]
    files += [directory / "run/children.json", directory / "state/versions/000007.json"]
    for file in files:
        file.write_bytes(GARBAGE[kind])
    (directory / "state/versions/000007.toml").write_text("[[virtual_service]]\n")
    with world(directory) as stage, ExitStack() as stack:
        for file in files:
            told = stage.wait_told(str(file), "damaged")
            (aside,) = file.parent.glob(f"{file.name}.*-*")
            assert aside.read_bytes() == GARBAGE[kind]
            assert aside.name in told
        assert Held(stack, stage.port, "127.0.62.1").is_alive()
        history = stage.lb.call("history")
        assert (history["version"], history["unconfirmed"]) == (8, None), "a number was given twice"
        stage.lb.call("drain", service="Symphony", real="One")
        for file in files[:2]:
            json.loads(file.read_text())  # they are written again


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_refuses_changes_whole_and_stops_no_traffic(tmp_path: Path, figure: Figure) -> None:
    directory = tmp_path / "x"
    with small_disk(directory / "state") as state, world(directory) as stage, ExitStack() as stack:
        held = Held(stack, stage.port, "127.0.62.2")
        stage.lb.call("weight", service="Symphony", real="One", weight=7)
        before = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
        filler = state / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        text = stage.lb.config_path.read_text()
        for attempt in (
            lambda: stage.lb.call("drain", service="Symphony", real="Two"),
            lambda: commit(stage.lb, text.replace("workers = 2", "workers = 2\n# another")),
        ):
            with pytest.raises(ControlError, match=r"nothing was changed.*No space left"):
                attempt()
        assert {it["admin"] for it in stage.service()["real_servers"]} == {"online"}
        assert stage.lb.call("history")["version"] == 1
        now = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file() and path != filler}
        assert now == before, "a file was harmed, or a half one left"
        assert held.is_alive()
        assert Held(stack, stage.port, "127.0.62.3").is_alive()
        filler.unlink()
        stage.lb.call("drain", service="Symphony", real="Two")
        assert commit(stage.lb, text.replace("workers = 2", "workers = 2\n# another"))["version"] == 2
        stack.close()
        figure("disk full", "changes refused, 0 connections lost, works again when there is room")
        stage.lb.stop()


@pytest.mark.root
def test_a_state_directory_that_turns_read_only(tmp_path: Path, figure: Figure) -> None:
    directory = tmp_path / "x"
    with small_disk(directory / "state") as state, world(directory) as stage, ExitStack() as stack:
        held = Held(stack, stage.port, "127.0.62.4")
        # Another mount on top: the one below has a writer, the lock.
        subprocess.run(["mount", "--bind", str(state), str(state)], check=True)
        stack.callback(subprocess.run, ["umount", "-l", str(state)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(state)], check=True)
        with pytest.raises(ControlError, match=r"nothing was changed.*Read-only file system"):
            stage.lb.call("halt", service="Symphony", real="Two")
        write(stage.lb.directory, stage.lb.config_path.read_text() + "\n# more\n", "other.toml")
        code, _, err = stage.lb.cli("commit", str(stage.lb.directory / "other.toml"))
        assert code == 1
        assert "Read-only file system" in err
        assert held.is_alive()
        assert Held(stack, stage.port, "127.0.62.5").is_alive()
        old = stage.lb.child("control")
        os.kill(old, 9)
        stage.lb.wait_replaced("control", old)
        wait_for(lambda: _reads(stage), 20, "a new control to work without writing")
        subprocess.run(["mount", "-o", "remount,bind,rw", str(state)], check=True)
        stage.lb.call("halt", service="Symphony", real="Two")
        stack.close()
        figure("state directory read-only", "changes refused, 0 connections lost, verbs that read go on")
        stage.lb.stop()


def _reads(stage: object) -> bool:
    try:
        return bool(stage.service())  # type: ignore[attr-defined]
    except OSError:
        return False
    except Exception as error:
        if type(error).__name__ != "ControlUnavailable":
            raise
        return False
