"""Machines that are not of the pair: who looks for a peer is told that there is none to be had, and nothing changes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from ha_lab import BOXES, Lab, running_pair
from harness import scaled, wait_for
from namespaces import inside

from lbfast.ha.link import CERTIFICATE, KEY, Link, ensure_identity
from lbfast.ha.skew import PROTOCOL

pytestmark = pytest.mark.root

STRANGER = "10.77.1.1"  # in the namespace of the clients
FILES = ("pair.json", "pair_peer.pem", "pair_generation.json", "maintenance.json", "former_pair.json")


@pytest.fixture(scope="module")
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    with running_pair("hg", ca) as found:
        found.wait_ready()
        found.wait_one_history()
        found.start("c", config="workers = 1\nvirtual_service = []\n")
        yield found


def looks(boxes: Lab) -> dict[str, Any]:
    """What must stay as it is, of both boxes."""
    found: dict[str, Any] = {}
    for name in BOXES:
        status, state = boxes.status(name), boxes.directory / name / "state"
        found[name] = {
            "files": {file: (state / file).read_bytes() for file in FILES if (state / file).exists()},
            "history": boxes.boxes[name].call("history"),
            "holds": boxes.holds(name),
            **{key: status[key] for key in ("role", "state", "ready", "maintenance", "moves")},
            **{key: status["replication"][key] for key in ("linked", "synced", "resyncs")},
        }
        for move in found[name]["moves"]:
            del move["ago_ms"]
    return found


@pytest.mark.parametrize("peer", ["a", "b"])
def test_a_box_that_has_a_peer_says_so_and_nothing_changes(boxes: Lab, peer: str) -> None:
    password = boxes.directory / "password"
    password.write_text("correct horse\n")
    boxes.wait_ready()
    before = looks(boxes)
    words = ("ha", "pair", "--local", STRANGER, "--peer", BOXES[peer], "--password-file", str(password))
    code, _, err = boxes.boxes["c"].cli(*words, timeout=60)
    assert code == 1
    assert f"{BOXES[peer]} is paired already" in err
    assert BOXES["b" if peer == "a" else "a"] not in err, "with whom is nobody's business"
    wait_for(lambda: looks(boxes) == before, 20, f"the boxes to be as before; {json.dumps(before, default=str)}")
    assert not (boxes.directory / "c/state/pair.json").exists()
    assert boxes.boxes["c"].json("ha", "status")["role"] == "standalone"


@pytest.mark.parametrize("peer", ["a", "b"])
@pytest.mark.parametrize("has_certificate", [False, True], ids=["without", "another"])
def test_without_the_pinned_certificate_there_is_no_frame_and_no_effect(
    boxes: Lab, tmp_path: Path, peer: str, has_certificate: bool
) -> None:
    """Neither for one who only listens, nor for one who speaks like the peer."""
    boxes.wait_ready()
    before = looks(boxes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if has_certificate:
        ensure_identity(tmp_path, "b" if peer == "a" else "a")  # the peer's name, too
        context.load_cert_chain(tmp_path / CERTIFICATE, tmp_path / KEY)

    async def knock(speaks: bool) -> bytes:
        async with asyncio.timeout(scaled(10)):
            reader, writer = await asyncio.open_connection(BOXES[peer], 7778, ssl=context, server_hostname="")
            if speaks:
                link = Link(reader, writer)
                link.put_json("F", {"name": "x", "version": "0", "protocol": PROTOCOL, "generation": 99})
                link.put_json("Q", {"id": 1, "verb": "unpair", "args": {}})
                link.put_json("P", {"step": "hello", "version": "0"})
            try:
                return await reader.read()
            except OSError:
                return b""
            finally:
                writer.transport.abort()

    with inside(boxes.ns("c")):
        for speaks in (False, True):
            assert asyncio.run(knock(speaks)) == b""
    wait_for(lambda: looks(boxes) == before, 20, f"the boxes to be as before; {json.dumps(before, default=str)}")
    assert boxes.status("a")["replication"]["linked"]
    boxes.wait_ready()
