"""A commit that one of the boxes cannot do: both have it, or nobody, and whoever asked is told why."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from ha_lab import PORT, SERVERS, VIP, Lab, running_pair
from harness import render_toml, virtual_service, wait_for
from namespaces import inside

from lbfast.config.versions import VersionStore

pytestmark = pytest.mark.root

NEW_PORT = 8443


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """In place of the guard of the same name: the boxes serve every test.  At the end, ``running_pair`` looks."""


@pytest.fixture(scope="module")
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hr", ca) as found:
        yield found


@pytest.fixture
def pair(boxes: Lab) -> Lab:
    boxes.wait_ready()
    assert (boxes.state("a"), boxes.state("b")) == ("active", "passive")
    boxes.wait_one_history()
    return boxes


@pytest.fixture
def taken(request: pytest.FixtureRequest, pair: Lab) -> Iterator[str]:
    """The box on which another program listens where the new service would."""
    with inside(pair.ns(request.param)):
        sock = socket.socket()
    with sock:
        sock.bind(("0.0.0.0", NEW_PORT))
        sock.listen()
        yield request.param


def facts(pair: Lab) -> dict[str, Any]:
    """Everything that a commit would change, of both boxes."""
    found = {}
    for name, box in pair.boxes.items():
        overview = box.call("overview")
        found[name] = {
            "versions": box.call("history")["versions"],
            "running": box.call("history")["version"],
            "services": [service["label"] for service in overview["virtual_services"]],
            "candidate": {key: value for key, value in box.call("candidate").items() if key != "edited_on"},
        }
    return found


def commit(pair: Lab, **settings: Any) -> tuple[int, str]:
    """Another service on box a; the exit code and what it says."""
    reals = [{"label": "New server", "address": SERVERS[0], "port": PORT}]
    new = virtual_service(NEW_PORT, reals, **{"label": "New", "address": VIP, **settings})
    file = pair.directory / "more.toml"
    file.write_text(pair.config() + render_toml({"virtual_service": [new]}))
    code, out, err = pair.boxes["a"].cli("commit", str(file), "--reason", "one more")
    return code, out + err


def agree(pair: Lab) -> bool:
    found = facts(pair)
    return bool(found["a"] == found["b"])


def check_works(pair: Lab) -> None:
    """Both are in step, and the same commit stands once nothing is in its way."""
    pair.wait_ready()
    code, said = commit(pair)
    assert code == 0, said
    wait_for(lambda: agree(pair), 20, "the same on both")
    assert "New" in facts(pair)["b"]["services"]
    code, out, err = pair.boxes["a"].cli("revert", "--reason", "as before")
    assert code == 0, out + err
    wait_for(lambda: agree(pair), 20, "the same on both")
    assert "New" not in facts(pair)["b"]["services"]


def test_an_interface_that_only_the_primary_has(pair: Lab) -> None:
    before = facts(pair)
    pair.ip("a", "link", "add", "eth9", "type", "veth", "peer", "name", "eth9p")
    try:
        code, said = commit(pair, address="10.99.0.1", interface="eth9")
        assert code != 0
        assert "the peer refused, nothing was changed" in said
        assert "eth9" in said
        assert facts(pair) == before
    finally:
        pair.ip("a", "link", "delete", "eth9")
    check_works(pair)


@pytest.mark.parametrize("taken", ["b"], indirect=True)
def test_a_port_that_is_taken_on_the_secondary(pair: Lab, taken: str) -> None:
    before = facts(pair)
    code, said = commit(pair)
    assert code != 0
    assert "the peer refused, nothing was changed" in said
    assert str(NEW_PORT) in said
    assert facts(pair) == before
    wait_for(lambda: agree(pair), 20, "the same on both")
    pair.wait_ready()


@pytest.mark.parametrize("taken", ["a"], indirect=True)
def test_a_port_that_is_taken_on_the_primary(pair: Lab, taken: str) -> None:
    """The peer has committed by then: it goes back."""
    before = facts(pair)
    code, said = commit(pair)
    assert code != 0
    assert str(NEW_PORT) in said
    assert "peer" not in said
    assert facts(pair)["a"] == before["a"]
    wait_for(lambda: facts(pair)["b"] == before["b"], 20, "the peer to be where it was")
    pair.wait_ready()
    assert facts(pair) == before


def test_a_version_that_the_primary_cannot_write(pair: Lab) -> None:
    before = facts(pair)
    versions = VersionStore(pair.directory / "a" / "state").directory
    in_the_way = versions / f"{before['a']['running'] + 1:06}.toml"
    in_the_way.mkdir()
    try:
        code, said = commit(pair)
    finally:
        in_the_way.rmdir()
    assert "cannot be written to" in said
    assert code != 0, said
    assert facts(pair)["a"] == before["a"]
    wait_for(lambda: facts(pair)["b"] == before["b"], 20, "the peer to be where it was")
    check_works(pair)
