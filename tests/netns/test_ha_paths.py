"""Further ways of the heartbeats are added and removed while the pair runs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import BOXES, CABLE, VIP, Lab, heartbeats, running_pair
from harness import wait_for
from namespaces import inside

pytestmark = pytest.mark.root

OTHER = {"a": "b", "b": "a"}


@pytest.fixture
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hw", ca) as found:
        found.wait_ready()
        yield found


def change(boxes: Lab, name: str, what: str, local: str, peer: str) -> tuple[int, str]:
    code, out, err = boxes.boxes[name].cli("ha", "path", what, local, peer)
    return code, out + err


def heard(boxes: Lab, name: str) -> dict[tuple[str, str], bool]:
    return {(path["local"], path["peer"]): path["heard"] for path in boxes.paths(name)}


def listens(boxes: Lab, address: str) -> bool:
    """The primary, for the replication, seen from the secondary."""
    with inside(boxes.ns("b")), socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex((address, 7778)) == 0


def test_a_path_is_removed_and_added_without_a_restart(boxes: Lab) -> None:
    moves = {name: len(boxes.status(name)["moves"]) for name in BOXES}
    assert listens(boxes, CABLE["a"])
    for name in BOXES:
        code, said = change(boxes, name, "remove", CABLE[name], CABLE[OTHER[name]])
        assert code == 0, said
        assert list(heard(boxes, name)) == [(BOXES[name], BOXES[OTHER[name]])]
    wait_for(lambda: not listens(boxes, CABLE["a"]), 10, "nobody to listen on the cable")
    for name in BOXES:
        code, said = change(boxes, name, "add", CABLE[name], CABLE[OTHER[name]])
        assert code == 0, said
        assert f"on the peer: lbfast ha path add {CABLE[OTHER[name]]} {CABLE[name]}" in said
    for name in BOXES:
        wait_for(lambda name=name: list(heard(boxes, name).values()) == [True, True], 10, f"both paths on {name}")
    wait_for(lambda: listens(boxes, CABLE["a"]), 10, "the primary to listen on the cable")
    boxes.wait_told("a", f"path {CABLE['a']} - {CABLE['b']} added by")

    # It carries: what comes over the LAN alone is not heard any more, and nothing moves.
    boxes.nft("b", heartbeats('iifname "eth0" drop'))
    wait_for(lambda: sorted(heard(boxes, "b").values()) == [False, True], 10, "the cable alone")
    wait_for(lambda: boxes.status("b")["peer"]["heard"], 10, "the peer to be heard")
    assert {name: len(boxes.status(name)["moves"]) for name in BOXES} == moves
    boxes.wait_states(a="active", b="passive")
    kept = json.loads((boxes.directory / "b/state/pair.json").read_text())["paths"]
    assert kept == [[CABLE["b"], CABLE["a"]]], "for the next start"


def test_what_is_no_path_is_refused_and_changes_nothing(boxes: Lab) -> None:
    before = (boxes.directory / "a/state/pair.json").read_bytes()
    for what, local, peer, why in (
        ("add", CABLE["a"], CABLE["b"], "there is a path"),
        ("add", BOXES["a"], "10.78.0.13", "there is a path"),
        ("add", VIP, "10.78.0.13", "is a service address"),
        ("add", "10.78.0.99", "10.78.0.13", "is not an address of this box"),
        ("add", "cable", "10.78.0.13", "is not an IP address"),
        ("add", "::1", "fe80::1%nowhere", "is not an interface of this box"),
        ("add", "::1", "fe80::1%\ue000", "is not an interface of this box"),
        ("remove", BOXES["a"], BOXES["b"], "it stays"),
        ("remove", CABLE["a"], "10.78.0.13", "there is no further path"),
        ("move", CABLE["a"], CABLE["b"], "add or remove"),
    ):
        code, said = change(boxes, "a", what, local, peer)
        assert code != 0, (what, local, peer)
        assert why in said, said
    assert (boxes.directory / "a/state/pair.json").read_bytes() == before
    wait_for(lambda: list(heard(boxes, "a").values()) == [True, True], 10, "both paths")
