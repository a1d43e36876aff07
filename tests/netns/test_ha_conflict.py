"""A third machine with the service address: found after a takeover that asks nobody, told, in the way of the next."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import VIP, Lab, served_pair
from harness import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with served_pair("hq", ca) as found:
        found.start_pair()
        found.wait_ready()
        yield found


def reasons(pair: Lab, name: str) -> str:
    return "; ".join(pair.status(name)["reasons"])


def test_another_machine_with_the_service_address(pair: Lab) -> None:
    pair.ip("r", "address", "add", f"{VIP}/16", "dev", "eth0")
    mac = json.loads(pair.ip("r", "-j", "link", "show", "dev", "eth0"))[0]["address"]
    pair.take_over("b", "--force")  # whatever the active box has found by now
    words = f"another machine ({mac}) has {VIP}, too"
    for name in ("a", "b"):
        wait_for(lambda name=name: words in reasons(pair, name), 20, f"{name} to know of it")
    pair.wait_told("b", words)
    assert pair.holds("b"), "the machine that has no right to it does not get it"
    code, _, err = pair.boxes["a"].cli("ha", "takeover")
    assert (code, words in " ".join(err.split())) == (1, True), err

    pair.ip("r", "address", "delete", f"{VIP}/16", "dev", "eth0")
    pair.wait_ready()
    pair.wait_told("b", f"{VIP} is this box's alone again")
