"""Drain, halt, online, weights, pins: kept first, then applied, restored after every kind of restart."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from control_world import World, service

from lbfast._stick import StickTable
from lbfast.control.admin import restore_admin
from lbfast.control.protocol import ControlError
from lbfast.control.statefile import NAME, save_marks
from lbfast.model.state import Admin

VS, R1, R2 = "Symphony", "Symphony Server 1", "Symphony Server 2"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state")


def state(world: World) -> dict[str, Any]:
    return json.loads((world.state_dir / NAME).read_text())


def test_drain_is_shown_kept_and_said(world: World) -> None:
    answer = world.call("drain", service=VS, real=R1, reason="patching")
    assert (answer["admin"], answer["state"]) == ("drain", "drain")
    assert answer["reason"].startswith("drained by root at 2026-03-01 08:00:00: patching (until ")
    (mark,) = state(world)["admin"].values()
    assert (mark["state"], mark["by"], mark["reason"]) == ("drain", "root", "patching")
    assert world.log.records[-1]["event"] == "admin"
    assert (world.log.records[-1]["service"], world.log.records[-1]["real"]) == (VS, R1)


def test_halt_cuts_and_online_ends_it(world: World) -> None:
    slot = world.slot(VS, R1)
    assert world.call("halt", service=VS, real=R1)["state"] == "halt"
    assert world.table.cuts == [slot]
    assert world.call("online", service=VS, real=R1)["state"] == "up"
    assert state(world)["admin"] == {}
    assert world.table.cuts == [slot]


@pytest.mark.parametrize("whole", [False, True])
def test_everything_survives_a_restart(world: World, whole: bool) -> None:
    world.call("halt", service=VS, real=R1, reason="broken")
    world.call("weight", service=VS, real=R2, weight=7)
    world.call("persistence_pin", service=VS, client="10.9.9.9", real=R2)
    if whole:
        world.new_memory()
        world.all_up()
    world.table.cuts.clear()
    world.again()
    servers = {real["label"]: real for real in world.call("overview")["virtual_services"][0]["real_servers"]}
    assert (servers[R1]["state"], servers[R2]["weight"]) == ("halt", 7)
    assert "broken" in servers[R1]["reason"]
    (entry,) = world.call("persistence_show", service=VS)["entries"]
    assert (entry["client"], entry["real"], entry["pinned"]) == ("10.9.9.9", R2, True)
    assert len(world.table.cuts) == whole  # what stands already is left alone


def test_marks_follow_ids_not_labels_or_places(tmp_path: Path) -> None:
    before = World(tmp_path)
    before.call("halt", service=VS, real=R2)
    renamed = service(VS, 1)
    renamed["real_server"].reverse()
    renamed["real_server"][1]["label"] = "Renamed"
    after = World(tmp_path, [renamed])
    states = {real["label"]: real["state"] for real in after.call("overview")["virtual_services"][0]["real_servers"]}
    assert states == {R1: "up", "Renamed": "halt", "Symphony Server 3": "up"}


def test_configured_weight_ends_the_override(world: World) -> None:
    world.call("weight", service=VS, real=R1, weight=3)
    assert [mark["weight"] for mark in state(world)["weights"].values()] == [3]
    world.call("weight", service=VS, real=R1, weight=100)
    assert state(world)["weights"] == {}


@pytest.mark.parametrize("verb", ["drain", "halt", "weight", "persistence_pin", "persistence_clear"])
def test_nothing_is_applied_that_cannot_be_kept(world: World, verb: str) -> None:
    world.call("persistence_pin", service=VS, client="10.1.1.1", real=R2)
    os.rename(world.state_dir, world.state_dir.with_name("away"))
    world.state_dir.write_text("a file where the directory should be")
    args = {"drain": {"real": R1}, "halt": {"real": R1}, "weight": {"real": R1, "weight": 1}}
    args |= {"persistence_pin": {"client": "10.1.2.3", "real": R1}, "persistence_clear": {}}
    with pytest.raises(ControlError, match=r"nothing was changed: .*state\.json \((File exists|Not a directory)\)"):
        world.call(verb, service=VS, **args[verb])
    real = world.table.real(world.slot(VS, R1))
    assert (real["admin"], real["weight"]) == (Admin.ONLINE, 100)
    assert world.table.cuts == []
    assert [entry["client"] for entry in world.shared.sticks[0].entries()] == ["10.1.1.1"]
    os.unlink(world.state_dir)


def test_disk_full_keeps_the_old_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.call("drain", service=VS, real=R1)
    before = (world.state_dir / NAME).read_bytes()
    with open("/dev/full", "wb") as full:  # every write to it fails with ENOSPC
        real_open = os.open

        def open_full(path: Any, flags: int, mode: int = 0o777) -> int:
            return os.dup(full.fileno()) if f".{NAME}" in os.fspath(path) else real_open(path, flags, mode)

        monkeypatch.setattr("lbfast.control.statefile.os.open", open_full)
        with pytest.raises(ControlError, match="No space left on device"):
            world.call("halt", service=VS, real=R2)
    assert (world.state_dir / NAME).read_bytes() == before
    assert os.listdir(world.state_dir) == [NAME]
    assert world.table.real(world.slot(VS, R2))["admin"] == Admin.ONLINE


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"version": 1, "admin": {"x": {"state": "dr', "Unterminated string"),
        (b'{"version\xff', "utf-8"),
        (b"[]", "not an object"),
        (b'{"version": 2, "admin": {}, "weights": {}, "pins": {}}', "version 2"),
        (b'{"version": 1, "admin": {"a": {"state": "on"}}, "weights": {}, "pins": {}}', "neither drain nor halt"),
        (b'{"version": 1, "admin": {}, "weights": {"a": {"weight": true}}, "pins": {}}', "not 0 to 256"),
        (b"[" * 100_000, "recursion|RecursionError"),
    ],
)
def test_a_damaged_file_is_moved_aside_and_reported(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / NAME).write_bytes(content)
    world = World(tmp_path)
    trouble = world.engine.book.file.trouble
    assert trouble is not None
    assert re.search(why, trouble)
    (aside,) = tmp_path.glob("state.json.corrupt-*")
    assert aside.read_bytes() == content
    world.call("drain", service=VS, real=R1)  # and life goes on
    assert state(world)["version"] == 1


def test_a_directory_in_the_place_of_the_file_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert "cannot be read" in str(World(tmp_path).engine.book.file.trouble)


def test_drain_deadline_expires_and_cuts(world: World) -> None:
    slot = world.slot(VS, R1)
    world.call("drain", service=VS, real=R1)
    world.time.pass_seconds(599)
    assert not world.table.real(slot)["drain_expired"]
    world.time.pass_seconds(2)
    assert world.table.real(slot)["drain_expired"]
    assert world.table.cuts == [slot]
    assert "drain deadline passed" in world.log.records[-1]["message"]
    world.again()
    assert world.table.real(slot)["drain_expired"]
    assert world.table.cuts == [slot]
    world.call("online", service=VS, real=R1)
    assert not world.table.real(slot)["drain_expired"]


def test_online_before_the_deadline_cancels_it(world: World) -> None:
    world.call("drain", service=VS, real=R1)
    world.call("online", service=VS, real=R1)
    world.time.pass_seconds(1000)
    assert not world.table.real(world.slot(VS, R1))["drain_expired"]
    assert world.table.cuts == []


@pytest.mark.parametrize(("jump", "expected"), [(timedelta(0), 400), (timedelta(days=-365), 600), (timedelta(1), 0)])
def test_deadline_after_restart_whatever_the_clock_did(world: World, jump: timedelta, expected: int) -> None:
    world.call("drain", service=VS, real=R1)
    world.time.pass_seconds(200)
    world.time.wall += jump
    world.again()
    slot = world.slot(VS, R1)
    if expected:
        world.time.pass_seconds(expected - 1)
        assert not world.table.real(slot)["drain_expired"]
    world.time.pass_seconds(1)
    assert world.table.real(slot)["drain_expired"]


def test_service_without_deadline_never_expires(world: World) -> None:
    world.call("drain", service="Röntgen ☢", real="Röntgen ☢ Server 1")
    assert world.time.timers == []


def test_restore_before_the_first_fork(world: World) -> None:
    world.call("halt", service=VS, real=R1)
    world.call("drain", service=VS, real=R2)
    world.time.pass_seconds(601)
    world.new_memory()
    clock = world.time.clock()
    assert restore_admin(world.state_dir, world.catalog, world.shared, clock) is None
    assert world.table.real(world.slot(VS, R1))["admin"] == Admin.HALT
    assert world.table.real(world.slot(VS, R2))["drain_expired"]


def test_pins_keep_to_the_mask_and_clear_forgets_them(world: World) -> None:
    name = "Röntgen ☢"
    entry = world.call("persistence_pin", service=name, client="10.1.2.3", real=f"{name} Server 2")
    assert entry["client"] == "10.1.2.0/24"
    assert list(next(iter(state(world)["pins"].values()))) == ["10.1.2.0"]
    assert world.call("persistence_clear", service=name, client="10.1.3.0/30") == {"removed": 0}
    assert world.call("persistence_clear", service=name, client="10.1.2.77") == {"removed": 1}
    assert state(world)["pins"] == {}


def test_pin_into_a_full_bucket_leaves_no_mark(world: World) -> None:
    tiny = StickTable.create(1)
    world.shared.sticks[0] = tiny
    with pytest.raises(ControlError) as caught:
        for number in range(1, 2000):
            world.call("persistence_pin", service=VS, client=f"10.0.{number // 256}.{number % 256}", real=R1)
    assert caught.value.code == "table_full"
    kept = set(next(iter(state(world)["pins"].values())))
    assert kept == {entry["client"] for entry in tiny.entries()}


def test_write_is_atomic_for_readers(world: World) -> None:
    world.call("drain", service=VS, real=R1)
    inode = (world.state_dir / NAME).stat().st_ino
    save_marks(world.state_dir / NAME, world.engine.book.marks)
    assert (world.state_dir / NAME).stat().st_ino != inode
    assert (world.state_dir / NAME).stat().st_mode & 0o777 == 0o600
