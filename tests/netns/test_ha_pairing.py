"""Pairing two real boxes: refusals that change nothing, the pair, what is the same on both, and its end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import BOXES, Lab, lab
from harness import wait_for

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
    code, said = pair(boxes)
    assert code == 0, said
    boxes.wait_ready()
    assert (boxes.state("a"), boxes.state("b")) == ("active", "passive")
    prints = [json.loads((boxes.directory / name / "state/pair.json").read_text())["peer_fingerprint"] for name in "ab"]
    assert all(one in said for one in prints), "people must be able to compare them"
    assert "is paired with" in pair(boxes)[1]

    # The configuration came over under the same identities, and edits go to the primary, to both boxes at once.
    assert services(b) == services(a) != []
    code, _, err = b.cli("drain", "Symphony", "Server 1")
    assert code == 1
    assert f"do it on the primary, {BOXES['a']}" in err
    assert a.cli("drain", "Symphony", "Server 1", "--reason", "updates")[0] == 0
    wait_for(lambda: services(b) == services(a), 10, "the drain on the other box")
    changed = boxes.directory / "changed.toml"
    changed.write_text(boxes.config().replace("Server 3", "Server Three"))
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
    assert lifetime(boxes, "a") > 1_000_000, "what was held for a pair is held for good"


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


@pytest.mark.parametrize("victim", ["a", "b"])
def test_killed_half_way_leaves_no_pair(boxes: Lab, victim: str) -> None:
    """One box dies as soon as the other has kept the pair: the survivor forgets it."""
    open_b(boxes)
    other = "b" if victim == "a" else "a"
    words = (
        "ha",
        "pair",
        "--local",
        BOXES["a"],
        "--peer",
        BOXES["b"],
        "--password-file",
        str(boxes.directory / "right"),
    )
    asking = threading.Thread(target=boxes.boxes["a"].cli, args=words, kwargs={"timeout": 60})
    asking.start()
    kept = boxes.directory / other / "state" / "pair.json"
    wait_for(kept.exists, 20, "the other box to keep the pair")
    boxes.kill_processes(victim)
    asking.join()
    confirmed = json.loads(kept.read_text())["confirmed"] if kept.exists() else "no"
    if confirmed == "no":
        wait_for(lambda: not kept.exists(), 30, "the survivor to forget")
    assert boxes.boxes[other].process.poll() is None
