"""Plans of commits: every kind of change, slots that stay, slots that rest, and the impact in words."""

from __future__ import annotations

from typing import Any

import pytest
from commit_world import config, follow, identity, real, service, slots
from hypothesis import given
from hypothesis import strategies as st

from lbfast.config.commit import PlanError, ids_of, plan_commit
from lbfast.config.impact import CUT, DRAIN, Facts, impact
from lbfast.config.layout import Layout, plan_layout
from lbfast.config.steps import (
    AddReal,
    AddService,
    ChangeCheck,
    ChangeLog,
    ChangeReal,
    ChangeService,
    ChangeWorkers,
    CloseListener,
    MoveListener,
    OpenListener,
    RemoveReal,
    RemoveService,
)
from lbfast.model.appliance import Config

BASE = config(service("A", "A1", "A2"), service("B", "B1", ports="81-82"))


def plan(candidate: Config, running: Config = BASE, layout: Layout | None = None) -> Any:
    return plan_commit(running, layout or plan_layout(running), candidate)


def test_nothing_differs() -> None:
    assert plan(BASE).steps == ()
    assert plan(BASE).layout == plan_layout(BASE)


CHANGES = {
    "weight": (
        config(service("A", real("A", "A1", weight=7), "A2"), service("B", "B1", ports="81-82")),
        [ChangeReal("A", "A1", 0, ("weight",), "A1")],
    ),
    "add real": (
        config(service("A", "A1", "A2", "A3"), service("B", "B1", ports="81-82")),
        [AddReal("A", "A3", 3)],
    ),
    "remove real": (
        config(service("A", "A2"), service("B", "B1", ports="81-82")),
        [RemoveReal("A", "A1", 0, 0)],
    ),
    "order": (
        config(service("A", "A2", "A1"), service("B", "B1", ports="81-82")),
        [ChangeService("A", 0, ("order of real servers",), "A")],
    ),
    "timeout": (
        config(service("A", "A1", "A2", connect_timeout="1s"), service("B", "B1", ports="81-82")),
        [ChangeService("A", 0, ("connect_timeout",), "A")],
    ),
    "check": (
        config(service("A", "A1", "A2", health_check={"rise": 5}), service("B", "B1", ports="81-82")),
        [ChangeCheck("A", 0, ("rise",))],
    ),
    "remove service": (
        config(service("A", "A1", "A2")),
        [
            CloseListener("B", "127.0.0.1", 81, 1),
            CloseListener("B", "127.0.0.1", 82, 1),
            RemoveReal("B", "B1", 2, 1),
            RemoveService("B", 1),
        ],
    ),
    "add service": (
        config(service("A", "A1", "A2"), service("B", "B1", ports="81-82"), service("C", "C1", ports="83")),
        [OpenListener("C", "127.0.0.1", 83, 2), AddService("C", 2), AddReal("C", "C1", 3)],
    ),
    "ports": (
        config(service("A", "A1", "A2"), service("B", "B1", ports="82-83")),
        [
            OpenListener("B", "127.0.0.1", 83, 1),
            ChangeService("B", 1, ("ports",), "B"),
            CloseListener("B", "127.0.0.1", 81, 1),
        ],
    ),
    "port goes to another service": (
        config(service("A", "A1", "A2", ports="80-81"), service("B", "B1", ports="82")),
        [
            ChangeService("A", 0, ("ports",), "A"),
            ChangeService("B", 1, ("ports",), "B"),
            MoveListener("A", "127.0.0.1", 81, 0, "B"),
        ],
    ),
    "renamed": (
        config(service("A", real("A", "Z", id=identity("A", "A1")), "A2"), service("B", "B1", ports="81-82")),
        [ChangeReal("A", "Z", 0, ("label",), "A1")],
    ),
    "log": (
        config(service("A", "A1", "A2"), service("B", "B1", ports="81-82"), log={"target": "none"}),
        [ChangeLog("", ("target",))],
    ),
    "workers": (
        config(service("A", "A1", "A2"), service("B", "B1", ports="81-82"), workers=3),
        [ChangeWorkers("", ("workers",))],
    ),
    "fallback": (
        config(
            service("A", "A1", "A2", fallback_server={"address": "192.0.2.9", "id": identity("fb")}),
            service("B", "B1", ports="81-82"),
        ),
        [AddReal("A", "fallback", 3)],
    ),
}


@pytest.mark.parametrize(("candidate", "steps"), CHANGES.values(), ids=CHANGES)
def test_each_kind_of_change(candidate: Config, steps: list[Any]) -> None:
    found = plan(candidate)
    assert list(found.steps) == steps
    assert all(step.words() and step.kind for step in found.steps)


def test_another_id_is_another_server() -> None:
    candidate = config(service("A", real("A", "A1", id=identity("new")), "A2"), service("B", "B1", ports="81-82"))
    found = plan(candidate)
    assert found.of(AddReal) == [AddReal("A", "A1", 3)]
    assert found.of(RemoveReal) == [RemoveReal("A", "A1", 0, 0)]


def test_a_slot_given_up_is_not_used_in_this_commit_and_rests_in_the_next() -> None:
    layout, running = plan_layout(BASE), BASE
    seen = []
    for number in range(60):
        candidate = config(service("A", "A1", f"X{number}"), service("B", "B1", ports="81-82"))
        found = plan_commit(running, layout, candidate)
        slot = found.layout.reals["A", f"X{number}"]
        assert slot not in layout.reals.values()
        seen.append(slot)
        running, layout = candidate, found.layout
    assert len(set(seen)) == 60
    assert layout.reals["A", "A1"] == 0


def test_slots_come_round_without_ever_growing_beyond_the_table() -> None:
    layout, running = plan_layout(BASE), BASE
    for number in range(600):
        candidate = config(service("A", "A1", f"X{number}"), service("B", "B1", ports="81-82"))
        found = plan_commit(running, layout, candidate, busy_reals={10, 11})
        running, layout = candidate, found.layout
        assert layout.reals["A", f"X{number}"] not in {10, 11}
    assert max(layout.reals.values()) < 256


def test_a_candidate_without_ids_is_a_mistake_of_the_caller() -> None:
    bare = Config.model_validate({"virtual_service": [{"label": "A", "address": "127.0.0.1", "ports": "80"}]})
    with pytest.raises(ValueError, match="has no id"):
        plan(bare)


def test_too_many_services_are_refused_in_words() -> None:
    empty = config()
    many = [service(f"S{number}", address="127.0.0.1", ports=str(number + 1)) for number in range(4_097)]
    with pytest.raises(PlanError, match="4096 slots are in use"):
        plan_commit(empty, plan_layout(empty), config(*many))


def test_ids_of_lists_services_servers_and_fallbacks() -> None:
    found = ids_of(config(service("A", "A1", fallback_server={"address": "192.0.2.9", "id": identity("fb")}))).ids
    assert {key: str(value) for key, value in found.items()} == {
        ("A", ""): identity("A"),
        ("A", "A1"): identity("A", "A1"),
        ("A", "fallback"): identity("fb"),
    }


# --- any two configurations -------------------------------------------------------------------------

_LABELS = st.sampled_from("ABCDE")
_SERVERS = st.lists(st.tuples(st.sampled_from("12345"), st.integers(0, 3)), unique_by=lambda it: it[0], max_size=4)


@st.composite
def configs(draw: Any) -> Config:
    labels = draw(st.lists(_LABELS, unique=True, max_size=4))
    made = []
    for place, label in enumerate(labels):
        servers = [real(label, f"{label}{name}", weight=weight) for name, weight in draw(_SERVERS)]
        shown = label + draw(st.sampled_from(["", "'"]))  # renamed, the same id
        ports = str(draw(st.integers(0, 2)) + 10 * (place + 1))
        made.append(service(label, *servers, ports=ports) | {"label": shown})
    return config(*made)


@given(configs(), configs())
def test_any_plan_leads_to_the_candidate(before: Config, after: Config) -> None:
    layout = plan_layout(before)
    found = plan_commit(before, layout, after)
    services, reals = follow(layout, found.steps)
    assert services == found.layout.services
    assert reals == found.layout.reals
    old, new = slots(layout, before), slots(found.layout, after)
    assert all(new[key] == old[key] for key in set(old) & set(new))
    assert len(set(found.layout.services.values())) == len(found.layout.services)
    assert len(set(found.layout.reals.values())) == len(found.layout.reals)
    for key in set(new) - set(old):
        of_its_kind = {slot for other, slot in old.items() if (other[1] is None) == (key[1] is None)}
        assert new[key] not in of_its_kind, "a slot just given up is used again"
    assert found.layout.listeners == plan_listeners(found.layout, after)
    assert plan_commit(after, found.layout, after).steps == ()


def plan_listeners(layout: Layout, candidate: Config) -> tuple[Any, ...]:
    plain = plan_layout(candidate).listeners
    return tuple(type(it)(layout.services[it.label], it.label, it.address, it.port) for it in plain)


# --- impact -----------------------------------------------------------------------------------------

FACTS = Facts(connections={0: 5, 2: 7}, clients={0: 3, 2: 4}, entries={0: 9, 1: 4})


def test_impact_of_nothing() -> None:
    found = impact(plan(BASE), FACTS)
    assert (found.clients_moved, found.connections_cut, found.listeners_opened) == (0, 0, 0)
    assert found.lines == ("0 clients moved to another server, 0 connections cut",)


def test_impact_of_a_removed_server_cut_or_drained() -> None:
    found = plan(CHANGES["remove real"][0])
    cut, drained = impact(found, FACTS, CUT), impact(found, FACTS, DRAIN)
    assert (cut.clients_moved, cut.connections_cut, cut.connections_left) == (3, 5, 0)
    assert (drained.clients_moved, drained.connections_cut, drained.connections_left) == (3, 0, 5)
    assert "'A' / 'A1' has 3 clients and 5 open connections" in cut.lines
    assert "5 connections of removed servers may end by themselves" in drained.lines


def test_impact_of_a_removed_service() -> None:
    found = impact(plan(CHANGES["remove service"][0]), FACTS)
    assert (found.clients_moved, found.connections_cut, found.listeners_closed) == (4, 7, 2)


def test_impact_of_another_mask_and_of_what_waits_for_a_restart() -> None:
    candidate = config(
        service("A", "A1", "A2", persistence={"mask_v4": 24}), service("B", "B1", ports="81-82"), workers=9
    )
    facts = Facts(clients={0: 3}, entries={0: 9}, forgetful={0}, resized={"B"})
    found = impact(plan(candidate), facts)
    assert found.clients_moved == 9
    assert any("placed anew" in line for line in found.lines)
    assert any("'B': the new table_size" in line for line in found.lines)
    assert any("workers: connections of a worker that goes pass" in line for line in found.lines)
