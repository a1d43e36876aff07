"""Pairing two real boxes: refusals that change nothing, the pair, what is the same on both, and its end."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from ha_lab import BOXES, HERE, Lab, lab
from harness import wait_for
from namespaces import inside

from lbfast.ha.link import dial, ensure_identity, make_context

pytestmark = pytest.mark.root

EMPTY = "workers = 1\nvirtual_service = []\n"
RIGHT, WRONG = "correct horse", "wrong horse"


@pytest.fixture
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    with lab("hp") as found:
        found.serve(ca)
        found.start("a")
        found.start("b", config=EMPTY)
        for name, password in (("right", RIGHT), ("wrong", WRONG)):
            (found.directory / name).write_text(password + "\n")
        yield found
        for box in found.boxes.values():
            if box.process.poll() is None:
                box.stop()


def pair(boxes: Lab, password: str = "right", peer: str = BOXES["b"], *more: str) -> tuple[int, str]:
    words = ("ha", "pair", "--local", BOXES["a"], "--peer", peer, "--password-file", str(boxes.directory / password))
    code, out, err = boxes.boxes["a"].cli(*words, *more, timeout=60)
    return code, out + err


def open_b(boxes: Lab) -> None:
    """The secondary-to-be gets its password, and listens."""
    code, _, err = boxes.boxes["b"].cli("ha", "password", "--password-file", str(boxes.directory / "right"))
    assert code == 0, err
    wait_for(lambda: "is wrong" in pair(boxes, "wrong")[1], 10, "the other box to answer pairings")


def make_pair(boxes: Lab, *more: str) -> str:
    """What it says.  A peer that did not answer in time is asked again."""
    said = [""]

    def is_made() -> bool:
        code, said[0] = pair(boxes, "right", BOXES["b"], *more)
        return code == 0

    try:
        wait_for(is_made, 40, "the pair")
    except AssertionError as error:
        error.add_note(said[0])
        raise
    return said[0]


def confirmed(path: Path) -> str:
    """What a pair file says, which may go at any moment."""
    try:
        return str(json.loads(path.read_text())["confirmed"])
    except FileNotFoundError:
        return "none"


def unpaired(boxes: Lab) -> bool:
    return not any((boxes.directory / name / "state" / "pair.json").exists() for name in BOXES)


def test_refusals_are_clear_and_change_nothing(boxes: Lab) -> None:
    code, said = pair(boxes)
    assert code == 1
    assert "cannot be reached" in said
    assert "a password set for the user loadbalancer" in said
    open_b(boxes)
    code, said = pair(boxes, peer=BOXES["a"])
    assert code == 1
    assert "both" in said
    code, said = pair(boxes, peer="10.77.0.999")
    assert code == 1
    assert "is not an IP address" in said
    assert boxes.boxes["a"].cli("ha", "unpair")[0] == 1
    assert boxes.boxes["a"].json("ha", "status")["role"] == "standalone"
    assert unpaired(boxes)
    assert boxes.holds("a")
    assert boxes.boxes["b"].json("overview") == {"virtual_services": []}


def test_a_pair_from_its_beginning_to_its_end(boxes: Lab) -> None:
    a, b = boxes.boxes["a"], boxes.boxes["b"]
    open_b(boxes)
    said = make_pair(boxes)
    boxes.wait_ready()
    boxes.wait_states(a="active", b="passive")
    prints = [json.loads((boxes.directory / name / "state/pair.json").read_text())["peer_fingerprint"] for name in "ab"]
    assert all(one in said for one in prints), "people must be able to compare them"
    assert "is paired with" in pair(boxes)[1]

    # The configuration came over under the same identities, and edits go to the primary, to both boxes at once.
    assert services(b) == services(a) != []
    boxes.wait_states(b="passive")
    code, _, err = b.cli("drain", "Symphony", "Server 1")
    assert code == 1
    assert f"do it on the primary, {BOXES['a']}" in err
    assert a.cli("drain", "Symphony", "Server 1", "--reason", "updates")[0] == 0
    wait_for(lambda: services(b) == services(a), 10, "the drain on the other box")
    changed = boxes.directory / "changed.toml"
    changed.write_text(boxes.config().replace("Server 3", "Server Three"))
    boxes.wait_states(b="passive")
    code, _, err = b.cli("commit", str(changed))
    assert code == 1
    assert "secondary" in err
    code, _, err = a.cli("commit", str(changed), "--reason", "renamed")
    assert code == 0, err
    assert "Server Three" in str(services(a))
    assert services(b) == services(a), "committed on both when it is committed"
    assert "renamed" in b.cli("history")[1]

    # A box that was away catches up.
    b.stop()
    assert a.cli("commit", str(restored(boxes)), "--reason", "back")[0] == 0
    boxes.start("b", config=EMPTY)
    wait_for(lambda: services(b_of(boxes)) == services(a), 20, "the box that was away to catch up")

    # Pins are entries of the active box, and come over too.
    boxes.wait_ready()
    assert a.cli("persistence", "pin", "Symphony", "10.1.2.3", "Server 2")[0] == 0
    wait_for(lambda: "10.1.2.3" in b_of(boxes).cli("persistence", "show", "Symphony")[1], 10, "the pin over there")
    boxes.wait_states(b="passive")
    code, _, err = b_of(boxes).cli("persistence", "clear", "Symphony")
    assert code == 1
    assert "do it on the active one" in err

    code, said, err = a.cli("ha", "unpair")
    assert code == 0, err
    assert "it was told" in said
    wait_for(lambda: unpaired(boxes), 10, "both to forget")
    assert boxes.holds("a")
    assert not boxes.holds("b")
    assert services(b_of(boxes)) == services(a), "both keep their configuration"
    wait_for(lambda: lifetime(boxes, "a") > 1_000_000, 10, "what was held for a pair to be held for good")


@pytest.mark.parametrize("first", ["a", "b"])
def test_after_the_end_one_box_alone_raises_the_addresses(boxes: Lab, first: str) -> None:
    """Both are started again, in either order; the other one takes them when it is told to, and nobody has them."""
    open_b(boxes)
    make_pair(boxes)
    boxes.wait_ready()
    assert boxes.boxes["a"].cli("ha", "unpair")[0] == 0
    wait_for(lambda: unpaired(boxes), 10, "both to forget")
    wait_for(lambda: b_of(boxes).json("overview").get("former"), 10, "the other box to say who has the addresses")

    changed = boxes.directory / "changed.toml"
    changed.write_text(boxes.config().replace("Server 3", "Server Three"))
    assert b_of(boxes).cli("commit", str(changed))[0] == 0, "a commit does not raise them either"
    for box in boxes.boxes.values():
        box.stop()
    for name in (first, "b" if first == "a" else "a"):
        boxes.start(name)
        assert not boxes.holds("b")
    assert boxes.holds("a")
    words = f"the service addresses stay with the former peer {BOXES['a']} since "
    for said in (("overview",), ("ha", "status"), ("events",)):
        assert words in " ".join(b_of(boxes).cli(*said)[1].split()), said
    status = b_of(boxes).json("ha", "status")
    assert (status["role"], status["state"], status["former"]["peer"]) == ("standalone", "passive", BOXES["a"])
    assert boxes.boxes["a"].json("ha", "status")["former"] is None
    assert "former" not in boxes.boxes["a"].json("overview")

    code, _, err = b_of(boxes).cli("ha", "takeover", timeout=60)
    assert code == 1
    assert "the service addresses cannot be raised" in err
    assert not boxes.holds("b")
    boxes.boxes["a"].stop()
    code, said, err = b_of(boxes).cli("ha", "takeover", "--reason", "the other one is gone", timeout=60)
    assert code == 0, err
    assert "this box is active now" in said
    assert boxes.holds("b")
    assert lifetime(boxes, "b") > 1_000_000
    assert b_of(boxes).cli("ha", "takeover")[0] == 1, "it is a box without a peer like any other"
    b_of(boxes).stop()
    boxes.start("b")
    assert boxes.holds("b")
    assert "former" not in b_of(boxes).json("overview")


def test_a_new_pair_ends_what_the_last_one_left(boxes: Lab) -> None:
    open_b(boxes)
    make_pair(boxes)
    boxes.wait_ready()
    assert boxes.boxes["a"].cli("ha", "unpair")[0] == 0
    note = boxes.directory / "b/state/former_pair.json"
    wait_for(note.exists, 10, "the note")
    wait_for(lambda: unpaired(boxes), 10, "both to forget")
    make_pair(boxes, "--overwrite")
    boxes.wait_ready()
    assert not note.exists()
    boxes.wait_states(a="active", b="passive")
    boxes.take_over("b")
    assert b_of(boxes).cli("ha", "unpair")[0] == 0
    wait_for(lambda: unpaired(boxes), 10, "both to forget again")
    assert (boxes.directory / "a/state/former_pair.json").exists(), "now the other box is the one without addresses"
    assert not note.exists()
    assert boxes.holds("b")
    assert not boxes.holds("a")


def test_a_peer_with_services_of_its_own_lets_them_go_only_when_asked_to(boxes: Lab) -> None:
    """And then what it had is beside its history, not lost."""
    boxes.boxes["b"].stop()
    boxes.start("b", config=boxes.config().replace('"Symphony"', '"Another"').replace("10.77.0.100", "10.77.0.101"))
    open_b(boxes)
    code, said = pair(boxes)
    assert code == 1
    assert "it has virtual services of its own (Another); --overwrite lets them go" in said
    assert unpaired(boxes)
    assert [service["label"] for service in b_of(boxes).call("overview")["virtual_services"]] == ["Another"]
    make_pair(boxes, "--overwrite")
    boxes.wait_ready()
    assert services(b_of(boxes)) == services(boxes.boxes["a"])
    wait_for(
        lambda: b_of(boxes).call("history")["versions"] == boxes.boxes["a"].call("history")["versions"],
        20,
        "the history of the pair",
    )
    aside = list((boxes.directory / "b/state/versions-aside").glob("*.toml"))
    assert any("Another" in path.read_text() for path in aside)


def test_another_version_is_told_to_update(boxes: Lab) -> None:
    open_b(boxes)
    ensure_identity(boxes.directory / "a" / "state", "a")

    async def greet() -> dict[str, object]:
        context = make_context(boxes.directory / "a" / "state", is_server=False, peer=None)
        link = await dial(BOXES["b"], 7778, BOXES["a"], context)
        link.put_json("P", {"step": "hello", "version": "0.0.9"})
        answer = (await link.receive()).json()
        link.close()
        return answer

    with inside(boxes.ns("a")):
        answer = asyncio.run(greet())
    assert answer["ok"] is False
    assert "you have 0.0.9; update one of them first" in str(answer["message"])
    assert unpaired(boxes)


def b_of(boxes: Lab):  # type: ignore[no-untyped-def]
    return boxes.boxes["b"]


def restored(boxes: Lab):  # type: ignore[no-untyped-def]
    path = boxes.directory / "restored.toml"
    path.write_text(boxes.config())
    return path


def services(box):  # type: ignore[no-untyped-def]
    return [
        (service["label"], [(real["label"], real["admin"]) for real in service["real_servers"]])
        for service in box.call("overview")["virtual_services"]
    ]


def lifetime(boxes: Lab, name: str) -> int:
    links = json.loads(boxes.ip(name, "-j", "-4", "address", "show", "dev", "eth0"))
    return next(int(one["valid_life_time"]) for one in links[0]["addr_info"] if one["local"] == "10.77.0.100")


# Each step once, and the two at which one box has kept the pair and the other has not.
MOMENTS = [("a", "ask"), ("b", "agreed"), ("a", "kept"), ("b", "kept"), ("a", "confirmed")]


@pytest.mark.parametrize(("victim", "moment"), MOMENTS)
def test_killed_half_way_leaves_two_boxes_of_one_mind(boxes: Lab, victim: str, moment: str) -> None:
    """One box dies at a moment of the pairing and comes back: there is a pair on both, or on neither."""
    armed = boxes.directory / "armed"
    boxes.boxes[victim].stop()
    config = None if victim == "a" else EMPTY
    boxes.box(victim, config, through=[sys.executable, str(HERE / "ha_halting.py"), moment, str(armed)]).start()
    boxes.boxes[victim].wait_ready()
    open_b(boxes)
    before = services(boxes.boxes["a"])
    armed.touch()
    asking = threading.Thread(target=pair, args=(boxes,))
    asking.start()
    try:
        wait_for(lambda: not armed.exists(), 20, f"the moment {moment}")
    finally:
        boxes.kill_processes(victim)
        asking.join()
    boxes.boxes[victim].clean_up()
    boxes.start(victim, config=config)

    def are_of_one_mind() -> bool:
        kept = [boxes.directory / name / "state" / "pair.json" for name in BOXES]
        return [confirmed(path) for path in kept] in (["yes", "yes"], ["none", "none"])

    wait_for(are_of_one_mind, 40, "both to have a pair, or neither")
    wait_for(lambda: sum(boxes.holds(name) for name in BOXES) == 1, 20, "one box to have the addresses")
    assert services(boxes.boxes["a"]) == before
    if unpaired(boxes):
        assert moment != "confirmed"
        assert boxes.holds("a")
        assert b_of(boxes).json("overview") == {"virtual_services": []}, "also without a word of a former peer"
        assert boxes.boxes["a"].json("ha", "status")["state"] == "active"
    else:
        assert moment in ("kept", "confirmed")
        boxes.wait_ready(40)
        assert services(b_of(boxes)) == before
