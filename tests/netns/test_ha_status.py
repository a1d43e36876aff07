"""The whole of what `lbfast ha status --json` says on the boxes of a pair, for programs that read it; its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from ha_lab import BOXES, CABLE, ROUTER, VIP, Lab, running_pair
from harness import wait_for

from lbfast import __version__

pytestmark = pytest.mark.root

OTHER = {"a": "b", "b": "a"}
LINKED = {"linked", "synced", "lag_entries", "lag_ms", "resyncs", "last_resync", "sent", "applied", "unknown", "kept"}
LINKED |= {"no_room", "trouble"}
KINDS = {
    "role": str,
    "state": str,
    "ready": bool,
    "reasons": list,
    "objections": list,
    "timing": dict,
    "differences": list,
    "level": int,
    "maintenance": type(None),
    "local": str,
    "name": str,
    "version": str,
    "fingerprint": str,
    "peer": dict,
    "servers": list,
    "replication": dict,
    "paths": list,
    "heartbeats": dict,
    "addresses": list,
    "moves": list,
}


@pytest.fixture
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("ht", ca) as found:
        found.wait_ready()
        yield found


def ask(boxes: Lab, name: str) -> tuple[int, dict[str, Any]]:
    code, out, err = boxes.boxes[name].cli("ha", "status", "--json")
    assert err == ""
    return code, json.loads(out)


def ask_when_ready(boxes: Lab, name: str) -> dict[str, Any]:
    """On a loaded machine a box may just be missing its peer."""
    answers: list[tuple[int, dict[str, Any]]] = []

    def is_ready() -> bool:
        answers.append(ask(boxes, name))
        code, found = answers[-1]
        heard = [found["peer"]["hears_us"], *(path["heard"] for path in found["paths"])]
        return code == 0 and all(heard) and all(server["here"] == "up" for server in found["servers"])

    wait_for(is_ready, 20, f"exit code 0 on {name}")
    return answers[-1][1]


def test_the_whole_of_it_on_both_boxes(boxes: Lab) -> None:
    prints = {name: ask(boxes, name)[1]["fingerprint"] for name in BOXES}
    for name, role, state in (("a", "primary", "active"), ("b", "secondary", "passive")):
        other = OTHER[name]
        found = ask_when_ready(boxes, name)
        assert {key: type(value) for key, value in found.items()} == KINDS
        assert (found["role"], found["state"], found["ready"], found["reasons"]) == (role, state, True, [])
        assert (found["local"], found["level"], found["version"], found["maintenance"]) == (
            BOXES[name],
            4,
            __version__,
            None,
        )
        assert found["differences"] == []
        assert found["addresses"] == [VIP]
        peer = found["peer"]
        assert peer.pop("silent_ms") >= 0
        assert peer == {
            "address": BOXES[other],
            "heard": True,
            "standing": "passive" if state == "active" else "active",
            "level": 4,
            "hears_us": True,
            "name": other,
            "version": __version__,
            "fingerprint": prints[other],
        }
        assert prints[name] != prints[other]
        replication = found["replication"]
        assert set(replication) == LINKED
        assert replication["linked"] is replication["synced"] is True
        assert replication["trouble"] == ""
        assert isinstance(replication["lag_entries"], int) and replication["lag_entries"] >= 0
        assert isinstance(replication["lag_ms"], int) and 0 <= replication["lag_ms"] <= 1000
        assert {(path["local"], path["peer"], path["via"], path["trouble"]) for path in found["paths"]} == {
            (BOXES[name], BOXES[other], "", ""),
            (CABLE[name], CABLE[other], "", ""),
            (BOXES[name], BOXES[other], ROUTER, ""),
        }
        assert all(path["heard"] for path in found["paths"])
        assert {frozenset(path) for path in found["paths"]} == {
            frozenset({"local", "peer", "via", "heard", "silent_ms", "sent", "send_failures", "trouble"})
        }
        assert [server["here"] for server in found["servers"]] == ["up"] * 3
        assert {frozenset(server) for server in found["servers"]} == {frozenset({"service", "real", "here", "there"})}
        assert {frozenset(move) for move in found["moves"]} <= {frozenset({"ago_ms", "from", "to", "why"})}
        assert all(isinstance(value, int) for value in found["heartbeats"].values())


def test_a_box_whose_peer_is_gone_is_not_ready(boxes: Lab) -> None:
    boxes.boxes["b"].stop()
    seen: dict[str, Any] = {}

    def is_alone() -> bool:
        seen["code"], seen["found"] = ask(boxes, "a")
        found = seen["found"]  # after its farewell the peer is heard of for a moment more
        return bool(found["state"] == "alone" and not found["peer"]["heard"] and not found["replication"]["linked"])

    wait_for(is_alone, 20, "the primary to miss its peer")
    found = seen["found"]
    assert seen["code"] == 1
    assert {key: type(value) for key, value in found.items()} == KINDS
    assert (found["role"], found["ready"], found["peer"]["heard"]) == ("primary", False, False)
    assert "the peer is not heard" in found["reasons"]
    replication = found["replication"]
    assert set(replication) == {"linked", "synced", "lag_entries", "lag_ms", "trouble"}
    assert (replication["lag_entries"], replication["lag_ms"], replication["synced"]) == (None, None, False)
    assert replication["trouble"] != ""
