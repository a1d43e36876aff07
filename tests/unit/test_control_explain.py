"""The sentences of `explain`, by examples: every reason, every kind of hold, every forecast."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from control_world import World, slab_record, stick_entry
from test_control_reports import EntryTable

from lbfast.control.explain import LEFT, WHY, Situation, explain, why_sentence
from lbfast.control.refusal import refusal
from lbfast.control.times import span
from lbfast.control.where_to import Candidate, choose_next, nearest_by_hash
from lbfast.model.state import AtLimit, DrainPolicy, Effective, Reason, Scheduler


def server(label: str, **changes: Any) -> Candidate:
    plain: dict[str, Any] = {
        "label": label, "id": label.encode().ljust(16, b"\0"), "state": Effective.UP, "weight": 100,
        "connections": 0, "clients": 0, "max_connections": 0,
    }  # fmt: skip
    return Candidate(**(plain | changes))


A, B, C = server("A", connections=5), server("B", connections=3), server("C", connections=9)


def situation(entry: dict[str, Any] | None = None, **changes: Any) -> Situation:
    plain: dict[str, Any] = {
        "service": "Symphony", "service_id": b"s" * 16, "client": "10.1.2.3", "key": "10.1.2.3", "group": None,
        "scheduler": Scheduler.WLC, "persistent": True, "drain_policy": DrainPolicy.UNTIL_EXPIRY,
        "reals": (A, B, C), "entry": None if entry is None else stick_entry(**entry), "real": "A",
        "since": "2026-03-01T08:14:00+00:00", "since_s": 3900.0, "expires_in": 731.0,
    }  # fmt: skip
    return Situation(**(plain | changes))


WHYS = {
    Reason.NONE: "No choice has been made for it yet.",
    Reason.TABLE: "Its entry in the persistence table named A, so it returned there.",
    Reason.NEW: "It was new: the scheduler wlc chose A.",
    Reason.PENDING: "Another connection of the same client was just being connected to A; it followed that one.",
    Reason.REDISPATCH: "The connect to B failed, so it was sent to A.",
    Reason.PINNED: "An operator pinned it to A.",
    Reason.DRAINED: "B was being drained and takes it no more, so it was moved to A.",
    Reason.DOWN: "B was down, so it was moved to A.",
    Reason.FULL: "B had reached its max_connections, so it was sent to A.",
    Reason.PEER: "The peer told us: the other box of the pair had sent it to A.",
    Reason.FALLBACK: "No real server could take it, so it was sent to the fallback server.",
    Reason.UNSTORED: "It was new and the persistence table had no room for an entry: it was sent to A for that "
    "connection only.",
    Reason.HALTED: "B was halted, so it was moved to A.",
}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_its_sentence(reason: Reason) -> None:
    assert why_sentence(situation({"reason": reason, "previous": 1}, previous="B")) == WHYS[reason]
    alone = why_sentence(situation({"reason": reason}))
    assert "None" not in alone
    assert alone.endswith(".")
    assert set(WHY) == set(Reason)


@pytest.mark.parametrize("reason", sorted(LEFT))
def test_before_is_told_with_its_reason(reason: Reason) -> None:
    lines = explain(situation({"previous": 1, "previous_reason": reason}, previous="B"))["lines"]
    assert f"Before, it was on B; it left that one because {LEFT[reason]}." in lines


def test_whole_answer() -> None:
    found = situation({"reason": Reason.DOWN, "previous": 1, "previous_reason": Reason.DOWN, "real": 0}, previous="B")
    assert explain(found) == {
        "client": "10.1.2.3", "service": "Symphony", "real": "A", "since": "2026-03-01T08:14:00+00:00",
        "reason": "down", "why": "B was down, so it was moved to A.", "connections": 0, "expires_in": 731.0,
        "pinned": False, "previous": "B", "previous_reason": "down", "if_down": "B", "refusal": None,
        "lines": [
            "10.1.2.3 is on A of Symphony since 2026-03-01 08:14:00 (1 h 5 min).",
            "B was down, so it was moved to A.",
            "No connection is open; the entry expires in 12 min 11 s unless the client comes back.",
            "Before, it was on B; it left that one because that one was down.",
            "If A went down now, it would go to B, now the least loaded.",
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "changes", "line"),
    [
        ({"holds": 1}, {}, "1 open connection holds the entry: it does not expire before the last one has closed."),
        ({"holds": 3}, {}, "3 open connections hold the entry: it does not expire before the last one has closed."),
        ({"pinned": True}, {}, "It has 0 open connections; a pinned entry does not expire."),
        ({"pinned": True}, {"pinned_by": "ann at 8"}, "The pin was set by ann at 8."),
        ({"state": "pending"}, {"expires_in": None}, "10.1.2.3 is just being connected to A of Symphony."),
        ({"state": "pending"}, {"expires_in": None}, "The entry is a reservation until the connect has succeeded."),
        ({}, {"group": "10.1.2.0/24", "since": None},
         "10.1.2.3 (all of 10.1.2.0/24 count as one client) is on A of Symphony."),
    ],
)  # fmt: skip
def test_lines(entry: dict[str, Any], changes: dict[str, Any], line: str) -> None:
    assert line in explain(situation(entry, **changes))["lines"]


@pytest.mark.parametrize(
    ("state", "changes", "words"),
    [
        (Effective.DRAIN, {}, "A drains (note): it may return there until its entry expires."),
        (
            Effective.DRAIN,
            {"drain_policy": DrainPolicy.NEW_CHOICE},
            "A drains (note): its next connection goes elsewhere.",
        ),
        (
            Effective.DRAIN,
            {"drain_expired": True},
            "the drain deadline has passed, its next connection goes elsewhere.",
        ),
        (Effective.HALT, {}, "A is halted (note): the client's next connection goes elsewhere."),
        (Effective.DOWN, {}, "A is down (note): the client's next connection goes elsewhere."),
        (Effective.CHECKING, {}, "A has no health verdict yet (note): the client's next connection goes elsewhere."),
    ],
)
def test_state_of_its_server(state: Effective, changes: dict[str, Any], words: str) -> None:
    found = situation({}, reals=(server("A", state=state, note="note"), B), **changes)
    assert any(words in line for line in explain(found)["lines"])


@pytest.mark.parametrize(
    ("state", "changes", "may_return"),
    [
        (Effective.UP, {}, True),
        (Effective.DRAIN, {}, True),
        (Effective.DRAIN, {"drain_expired": True}, False),
        (Effective.DRAIN, {"drain_policy": DrainPolicy.NEW_CHOICE}, False),
        (Effective.DRAIN, {"drain_policy": DrainPolicy.WHILE_CONNECTED}, False),
        (Effective.DRAIN, {"drain_policy": DrainPolicy.WHILE_CONNECTED, "connections": 1}, True),
        (Effective.HALT, {}, False),
        (Effective.DOWN, {}, False),
    ],
)
def test_no_if_for_a_client_that_cannot_return(state: Effective, changes: dict[str, Any], may_return: bool) -> None:
    last = explain(situation({}, reals=(server("A", state=state), B), **changes))["lines"][-1]
    begin = "If A went down now, it would go" if may_return else "With its next connection it would go"
    assert last.startswith(begin + " to B"), last


def test_a_full_server_of_its_own_is_told() -> None:
    lines = explain(situation({}, reals=(server("A", max_connections=2, connections=2), B)))["lines"]
    assert lines[-2] == "A is at its max_connections (2): the client's next connection goes elsewhere."
    assert lines[-1].startswith("With its next connection it would go to B"), lines


@pytest.mark.parametrize("changes", [{"drain_policy": DrainPolicy.NEW_CHOICE}, {"drain_expired": True}])
def test_a_pin_outlasts_a_drain(changes: dict[str, Any]) -> None:
    lines = explain(situation({"pinned": True}, reals=(server("A", state=Effective.DRAIN), B), **changes))["lines"]
    assert lines[-2] == "A drains: it is pinned, so it may return there."
    assert lines[-1].startswith("If A went down now,"), lines


@pytest.mark.parametrize("entry", [None, {}])
def test_what_stands_against_the_next_connection_replaces_the_forecast(entry: dict[str, Any] | None) -> None:
    found = explain(situation(entry, refusal="It is refused: so."))
    assert found["refusal"] == "It is refused: so."
    assert found["lines"][-1] == "It is refused: so."
    assert not any("would go" in line for line in found["lines"])


@pytest.mark.parametrize(
    ("settings", "connections", "of_client", "words"),
    [
        ({}, 0, 0, None),
        ({"deny": ("10.9.0.0/16", "10.1.2.0/24")}, 0, 0, "It is refused: deny of Symphony has 10.1.2.0/24."),
        ({"deny": ("2001:db8::/32",)}, 0, 0, None),
        ({"allow": ("10.1.0.0/16",)}, 0, 0, None),
        ({"allow": ("10.2.0.0/16",)}, 0, 0, "It is refused: allow of Symphony does not have it."),
        ({"allow": ("10.0.0.0/8",), "deny": ("10.1.2.3/32",)}, 0, 0, "deny of Symphony has 10.1.2.3/32"),
        ({"max_connections": 5}, 4, 0, None),
        ({"max_connections": 5}, 5, 0, "at its max_connections (5): its next connection would wait"),
        ({"max_connections": 5, "at_limit": AtLimit.RESET}, 5, 0, "would be refused"),
        ({"max_connections": 5, "at_limit": AtLimit.FALLBACK}, 5, 0, "would go to the fallback server"),
        ({"client_max_connections": 2}, 9, 1, None),
        ({"client_max_connections": 2}, 9, 2, "It is at client_max_connections (2)"),
        ({"client_max_connections": 2, "client_limit_report_only": True}, 9, 2, None),
    ],
)
def test_refusals(
    settings: dict[str, Any], connections: int, of_client: int, words: str | None, tmp_path: Path
) -> None:
    service = replace(World(tmp_path).engine.catalog.service("Symphony"), **settings)
    found = refusal(service, "10.1.2.3", connections, of_client)
    assert found is None if words is None else found is not None and words in found, found


@pytest.mark.parametrize(
    ("scheduler", "reals", "label", "words"),
    [
        (Scheduler.WLC, [A, B, C], "B", "now the least loaded"),
        (Scheduler.WLC, [server("A", weight=200, connections=5), server("B", connections=5)], "A", "least loaded"),
        (Scheduler.WLC, [server("A", clients=9), server("B", connections=5)], "B", "least loaded"),
        (Scheduler.WLC, [server("A"), server("B")], None, "to one of A or B: now equally loaded"),
        (Scheduler.WRR, [A, B, C], None, "to one of A, B or C: they take turns"),
        (Scheduler.WRR, [A, server("B", weight=0)], "A", "the only one"),
        (Scheduler.WLC, [server("A", max_connections=5, connections=5), C], "C", "the only one"),
        (Scheduler.WLC, [server("A", state=Effective.DRAIN), server("B", state=Effective.DOWN)], None, "nowhere"),
        (Scheduler.WLC, [], None, "nowhere"),
        (Scheduler.WRR, [server(str(n)) for n in range(9)], None, "0, 1, 2, 3 and 5 others"),
    ],
)
def test_forecast(scheduler: Scheduler, reals: list[Candidate], label: str | None, words: str) -> None:
    forecast = choose_next(scheduler, b"s" * 16, "10.1.2.3", reals, None)
    assert forecast.label == label
    assert words in forecast.words


def test_forecast_falls_back() -> None:
    assert choose_next(Scheduler.WLC, b"s" * 16, "10.1.2.3", [], server("fallback")).label == "fallback"
    down = server("fallback", state=Effective.DOWN)
    assert choose_next(Scheduler.WLC, b"s" * 16, "10.1.2.3", [], down).label is None


def test_hash_is_the_data_planes_own() -> None:
    reals = [A, B, C]
    chosen = {}
    for number in range(60):
        key = f"10.0.0.{number}"
        forecast = choose_next(Scheduler.HASH, b"s" * 16, key, reals, None)
        index = nearest_by_hash(b"s" * 16, key, [(real.id, real.weight) for real in reals])
        assert forecast.label == reals[index].label
        chosen[key] = forecast.label
    assert set(chosen.values()) == {"A", "B", "C"}
    for key, label in chosen.items():  # the others stay where they are when one goes
        rest = [real for real in reals if real.label != "C"]
        if label != "C":
            assert choose_next(Scheduler.HASH, b"s" * 16, key, rest, None).label == label


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (61, "1 min 1 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")])
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_verb_for_a_known_and_an_unknown_client(tmp_path: Path) -> None:
    world = World(tmp_path)
    unknown = world.call("explain", service="Symphony", client="10.7.7.7")
    assert (unknown["real"], unknown["if_down"]) == (None, None)
    assert unknown["lines"][0].startswith("10.7.7.7 has no entry in the persistence table of Symphony")
    assert unknown["lines"][-1].startswith("Its next connection would go to one of Symphony Server 1")
    world.call("persistence_pin", service="Symphony", client="10.7.7.7", real="Symphony Server 2")
    known = world.call("explain", service="Symphony", client="10.7.7.7")
    assert (known["real"], known["reason"], known["pinned"]) == ("Symphony Server 2", "pinned", True)
    assert any(line.startswith("The pin was set by root at 2026-03-01") for line in known["lines"])
    json.dumps([unknown, known])


def test_an_expired_entry_that_no_sweep_has_reached_counts_for_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    service = world.engine.catalog.service("Symphony")
    entry = stick_entry(closed_ms=world.time.ms - service.timeout_ms)
    world.shared.sticks[0] = EntryTable([entry])
    assert world.call("explain", service="Symphony", client="10.1.2.3")["real"] == "Symphony Server 1"
    assert world.call("persistence_show", service="Symphony")["count"] == 1
    world.time.ms += 1
    gone = world.call("explain", service="Symphony", client="10.1.2.3")
    assert (gone["real"], gone["expires_in"]) == (None, None)
    assert gone["lines"][0].endswith("it counts as a new client.")
    assert world.call("persistence_show", service="Symphony")["entries"] == []
    entry["pinned"] = True
    assert world.call("explain", service="Symphony", client="10.1.2.3")["real"] == "Symphony Server 1"


def test_verb_for_a_held_entry_and_without_persistence(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.shared.sticks[0] = EntryTable([stick_entry(holds=2, previous=2, previous_reason=Reason.DOWN)])
    held = world.call("explain", service="Symphony", client="10.1.2.3")
    assert (held["connections"], held["expires_in"], held["previous"]) == (2, None, "Symphony Server 3")
    world.shared.slabs[1].records = [slab_record(service=2, real=world.slot("Plain", "Plain Server 1"))]
    plain = world.call("explain", service="Plain", client="10.1.2.3")
    assert plain["lines"] == [
        "Plain keeps no persistence table: each connection of 10.1.2.3 is chosen anew.",
        "It has 1 open connection: 1 to Plain Server 1.",
        "Its next connection would go to Plain Server 1, the only one that takes new clients.",
    ]
