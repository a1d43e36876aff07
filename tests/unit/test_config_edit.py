"""Edits of a configuration's text: what is asked for happens, what is not stays as it was written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfast.config.edit import EditError, edit
from lbfast.config.store import parse

EXAMPLE = (Path(__file__).parents[2] / "packaging/examples/symphony.toml").read_text()


def data(text: str) -> Any:
    return tomllib.loads(text)


def comments(text: str) -> set[str]:
    return {row.partition("#")[2].strip() for row in text.splitlines() if "#" in row}


def test_every_operation_does_what_it_says() -> None:
    text, lines = edit(
        EXAMPLE,
        [
            {"op": "change_service", "service": "Symphony", "settings": {"max_connections": 5, "ports": "444"}},
            {
                "op": "change_service",
                "service": "Symphony",
                "settings": {"health_check": {"interval": "9s", "rise": None}},
            },
            {"op": "add_real", "service": "Symphony", "settings": {"label": "Four", "address": "192.168.85.203"}},
            {"op": "change_real", "service": "Symphony", "real": "Symphony Server 1", "settings": {"weight": 7}},
            {"op": "delete_real", "service": "Symphony", "real": "Symphony Server 2"},
            {"op": "clone_service", "service": "Symphony", "settings": {"label": "Twin", "ports": "445"}},
            {"op": "change_global", "settings": {"workers": 2, "log": {"target": "none"}}},
        ],
    )
    assert len(lines) == 7
    found = data(text)
    first, twin = found["virtual_service"]
    assert (first["max_connections"], first["ports"], first["health_check"]["interval"]) == (5, "444", "9s")
    assert "rise" not in first["health_check"]
    assert [real["label"] for real in first["real_server"]] == ["Symphony Server 1", "Symphony Server 3", "Four"]
    assert first["real_server"][0]["weight"] == 7
    assert (twin["label"], twin["ports"], len(twin["real_server"])) == ("Twin", "445", 3)
    assert (found["workers"], found["log"]["target"]) == (2, "none")
    assert comments(EXAMPLE) <= comments(text), "comments stay"
    parse(text)


def test_a_clone_has_identities_of_its_own() -> None:
    text = EXAMPLE.replace('label = "Symphony"\n', 'label = "Symphony"\nid = "0b5e4f0a-6a3c-4c0e-9d55-0d2f6a1f7c11"\n')
    cloned, _ = edit(text, [{"op": "clone_service", "service": "Symphony", "settings": {"label": "T", "ports": "1"}}])
    assert "id" not in data(cloned)["virtual_service"][1]


def test_the_last_service_can_go_and_the_first_can_come() -> None:
    none, _ = edit(EXAMPLE, [{"op": "delete_service", "service": "Symphony"}])
    assert data(none)["virtual_service"] == []
    parse(none)
    settings_ = {
        "label": "New",
        "address": "10.0.0.1",
        "ports": "80",
        "real_server": [{"label": "r", "address": "10.0.0.2"}],
    }
    again, _ = edit(none, [{"op": "add_service", "settings": settings_}])
    assert parse(again).config.virtual_services[0].real_servers[0].label == "r"


@pytest.mark.parametrize(
    "operation",
    [
        {},
        {"op": "explode"},
        {"op": "add_service"},
        {"op": "add_service", "settings": {}},
        {"op": "add_service", "settings": {"label": "Symphony"}},
        {"op": "delete_service", "service": "Other"},
        {"op": "change_real", "service": "Symphony", "real": "Other", "settings": {"weight": 1}},
        {"op": "change_service", "service": "Symphony", "settings": {"real_server": []}},
        {"op": "change_global", "settings": {"virtual_service": []}},
        {"op": "change_service", "service": "Symphony", "settings": {"ports": [[1]]}},
        {"op": "replace", "text": "a = = 3"},
        {"op": "replace"},
    ],
)
def test_what_cannot_be_done_is_told(operation: dict[str, Any]) -> None:
    with pytest.raises(EditError):
        edit(EXAMPLE, [operation])


def test_no_operation_is_an_error() -> None:
    with pytest.raises(EditError):
        edit(EXAMPLE, [])


LABELS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 256), st.lists(st.sampled_from(["10.0.0.0/8", "::1/128"]), max_size=3))
def test_whatever_is_written_is_read_back(label: str, weight: int, allow: list[str]) -> None:
    text, _ = edit(
        EXAMPLE,
        [
            {"op": "change_service", "service": "Symphony", "settings": {"allow": allow, "label": label}},
            {"op": "add_real", "service": label, "settings": {"label": label, "address": "10.0.0.1", "weight": weight}},
        ],
    )
    service = data(text)["virtual_service"][0]
    assert (service["label"], service["allow"]) == (label, allow)
    assert service["real_server"][-1] == {"label": label, "address": "10.0.0.1", "weight": weight}
    assert data(text)["log"] == data(EXAMPLE)["log"]
