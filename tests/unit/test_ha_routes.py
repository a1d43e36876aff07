"""Routes to real servers that are not probed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lbfast.ha import routes
from lbfast.ha.routes import Routes


def plan(*reals: tuple[str, str, bool]) -> Any:
    found = [SimpleNamespace(label=label, address=address, is_probed=probed) for label, address, probed in reals]
    return SimpleNamespace(services=[SimpleNamespace(label="Symphony", reals=found)])


def test_who_is_probed_or_has_no_address_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(routes, "has_route", lambda address: bool(asked.append(address)))
    looked = Routes()
    current = plan(("one", "10.0.0.1", False), ("two", "10.0.0.2", True), ("three", "", False))
    assert looked.problems(current, 0) == ["there is no route to one of Symphony (10.0.0.1)"]
    looked.problems(current, 4999)
    assert asked == ["10.0.0.1"], "no more often than every few seconds"
    looked.problems(current, 5000)
    assert asked == ["10.0.0.1"] * 2
    looked.problems(plan(("four", "10.0.0.4", False)), 5001)
    assert asked[2:] == ["10.0.0.4"], "another configuration is looked at at once"
