"""Drains with an end of their own: deadline, cut, stagger; kept across restarts, refused when they make no sense."""

from __future__ import annotations

import itertools
import json
from datetime import timedelta
from pathlib import Path

import pytest
from control_world import START, World, slab_record, stick_entry
from hypothesis import given
from hypothesis import strategies as st

from lbfast._table import part_of
from lbfast.control.drains import PARTS, overdue, remaining, share_after
from lbfast.control.marks import AdminMark
from lbfast.control.protocol import ControlError
from lbfast.control.statefile import NAME

VS, R1, R2 = "Symphony", "Symphony Server 1", "Symphony Server 2"
NO_DEADLINE = "Röntgen ☢"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.all_up()
    return made


def share(world: World) -> int:
    found: int = world.table.real(world.slot(VS, R1))["drain_share"]
    return found


def test_a_deadline_of_its_own_replaces_the_configured_one(world: World) -> None:
    slot = world.slot(VS, R1)
    world.call("drain", service=VS, real=R1, deadline=30, cut=True)
    world.time.pass_seconds(29)
    assert not world.table.real(slot)["drain_expired"]
    world.time.pass_seconds(1)
    assert world.table.real(slot)["drain_expired"]
    assert world.table.cuts == [slot]


def test_a_stagger_takes_the_clients_in_turn_and_ends_with_all(world: World) -> None:
    slot = world.slot(VS, R1)
    world.call("drain", service=VS, real=R1, deadline=10, cut=True, stagger=60)
    world.time.pass_seconds(10)
    seen = [share(world)]
    for _ in range(119):
        world.time.pass_seconds(0.5)
        seen.append(share(world))
    assert seen == sorted(seen)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= PARTS // 60, "a step moved more than its part"
    assert world.table.cuts == []
    world.time.pass_seconds(1)
    assert world.table.real(slot)["drain_expired"]
    assert world.table.cuts == [slot]
    told = [it["message"] for it in world.log.records]
    assert any("moved and cut over 60 s" in message for message in told)


def test_online_ends_a_stagger(world: World) -> None:
    world.call("drain", service=VS, real=R1, deadline=0, stagger=60)
    world.time.pass_seconds(0)
    world.time.pass_seconds(30)
    assert share(world) > 0
    world.call("online", service=VS, real=R1)
    world.time.pass_seconds(60)
    assert share(world) == 0
    assert not world.table.real(world.slot(VS, R1))["drain_expired"]


@pytest.mark.parametrize("whole", [False, True], ids=["control", "lbfast"])
def test_a_stagger_goes_on_where_it_was_after_a_restart(world: World, whole: bool) -> None:
    world.call("drain", service=VS, real=R1, deadline=10, cut=True, stagger=100)
    world.time.pass_seconds(10)
    world.time.pass_seconds(40)
    if whole:
        world.new_memory()
        world.all_up()
    world.again()
    world.time.pass_seconds(1)
    assert PARTS * 0.38 < share(world) < PARTS * 0.45
    for _ in range(59):
        world.time.pass_seconds(1)
    assert world.table.real(world.slot(VS, R1))["drain_expired"]


@pytest.mark.parametrize("args", [{"cut": True}, {"stagger": 5}])
def test_an_end_without_a_deadline_is_refused(world: World, args: dict[str, object]) -> None:
    for verb in ("drain", "drain_plan"):
        with pytest.raises(ControlError, match="found without a deadline, expected one") as caught:
            world.call(verb, service=NO_DEADLINE, real=f"{NO_DEADLINE} Server 1", **args)
        assert caught.value.code == "bad_argument"
    assert not (world.state_dir / NAME).exists(), "something was kept all the same"


@pytest.mark.parametrize(
    "change", [{"length": -1}, {"length": "x"}, {"stagger": float("nan")}, {"length": True}, {"stagger": None}]
)
def test_a_state_file_with_a_foreign_end_is_moved_aside(world: World, change: dict[str, object]) -> None:
    world.call("drain", service=VS, real=R1, deadline=5)
    path = world.state_dir / NAME
    document = json.loads(path.read_text())
    next(iter(document["admin"].values())).update(change)
    path.write_text(json.dumps(document))
    world.again()
    assert world.engine.book.file.trouble
    assert list(world.state_dir.glob(f"{NAME}.corrupt-*"))


def test_a_state_file_from_before_is_read(world: World) -> None:
    world.call("drain", service=VS, real=R1, deadline=5)
    path = world.state_dir / NAME
    document = json.loads(path.read_text())
    for mark in document["admin"].values():
        for key in ("length", "cut", "stagger"):
            del mark[key]
    path.write_text(json.dumps(document))
    world.again()
    assert world.engine.book.file.trouble is None


def test_the_plan_counts_what_is_there_and_changes_nothing(world: World) -> None:
    slot, now = world.slot(VS, R1), world.time.ms
    slab = world.shared.slabs[0]
    slab.records.append(slab_record(real=slot, accepted_ms=now - 60_000, client_active_ms=now))
    slab.records.append(slab_record(real=slot, accepted_ms=now - 960_000, client_active_ms=now - 950_000,
                                    server_active_ms=now - 950_000))  # fmt: skip
    slab.records.append(slab_record(real=world.slot(VS, R2)))
    found = world.call("drain_plan", service=VS, real=R1, deadline=600, cut=True)
    assert (found["connections"], found["idle"], found["connections_at_deadline"]) == (2, 1, 1)
    assert (found["state"], found["deadline_in"], found["cut"]) == ("up", 600.0, True)
    assert found["empty_in"] == 600.0
    assert any("2 open connections, 1 of them idle for longer than 15 min" in line for line in found["lines"])
    assert not (world.state_dir / NAME).exists()


def test_the_plan_of_a_drain_under_way_says_what_is_left_of_it(world: World) -> None:
    world.call("drain", service=VS, real=R1, deadline=100, stagger=20)
    world.time.pass_seconds(60)
    found = world.call("drain_plan", service=VS, real=R1)
    assert (found["deadline_in"], found["stagger"], found["state"]) == (40.0, 20.0, "drain")


def test_occupancy_knows_whom_the_drain_lets_return(world: World) -> None:
    with pytest.raises(ControlError, match="is online: new clients may come"):
        world.call("occupancy", service=VS, real=R1)
    world.call("persistence_pin", service=VS, client="10.9.9.9", real=R1)
    world.call("drain", service=VS, real=R1, deadline=10)
    assert world.call("occupancy", service=VS, real=R1)["returning"] == 1
    world.time.pass_seconds(10)
    found = world.call("occupancy", service=VS, real=R1)
    assert (found["returning"], found["safe"]) == (1, False), "a pinned client is let back after the deadline, too"
    world.call("halt", service=VS, real=R1)
    assert world.call("occupancy", service=VS, real=R1)["safe"]


@given(st.integers(0, 200_000), st.integers(0, 100_000), st.integers(0, 3_600))
def test_shares_only_grow_and_end_whole(elapsed: int, more: int, stagger: int) -> None:
    assert 0 <= share_after(elapsed, stagger) <= share_after(elapsed + more, stagger) <= PARTS
    assert share_after(stagger * 1000, stagger) == PARTS


@given(st.floats(-1e8, 1e8), st.integers(0, 10_000), st.integers(0, 10_000))
def test_no_jump_of_the_clock_stretches_anything(jump: float, length: int, stagger: int) -> None:
    mark = AdminMark("drain", "x", "y", deadline_at=(START + timedelta(seconds=length)).isoformat())
    now = START + timedelta(seconds=jump)
    assert 0 <= remaining(mark, now, length) <= length
    assert 0 <= overdue(mark, now, stagger) <= stagger


def test_parts_are_even_for_neighbours() -> None:
    parts = [part_of(f"10.1.{high}.{low}") for high in range(8) for low in range(1, 251)]
    quarters = [sum(q * PARTS // 4 <= part < (q + 1) * PARTS // 4 for part in parts) for q in range(4)]
    assert all(abs(count - 500) < 100 for count in quarters), quarters
    assert stick_entry()["client"] and 0 <= part_of("2001:db8::1") < PARTS
