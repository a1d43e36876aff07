"""A pair of two releases: one apart they work together, each ignoring what it does not know; further apart they say so.

The other box is played by ``ha_other_release.py``, with the messages that the release before this one sent, or with
what a later one may add to ours.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
from ha_lab import BOXES, KEY, Lab, served_pair
from harness import Lbfast, wait_for

from lbfast.ha.skew import PROTOCOL
from lbfast.ha.status import LAG_MS
from lbfast.ha.wire import VERSION

pytestmark = pytest.mark.root

OTHER = {"a": "b", "b": "a"}
# What the release before this one said of itself, as it was on the wire.
BEFORE = {
    "name": "old-box",
    "version": "0.0.9",
    "config_version": 1,
    "digest": "0" * 64,
    "servers": [],
    "problems": [],
    "settings": {"time zone": "Europe/London"},
    "generation": 0,
    "marks": "",
    "marks_alone": False,
}
RESYNC = [["B", {"number": 1}], ["Z", {"number": 2}]]  # a whole one, without entries
# The arguments that its control took of a commit: one more, and it refused.
WISH = {"text", "ids", "file", "by", "reason", "removed"}


@pytest.fixture
def place(ca: trustme.CA) -> Iterator[Lab]:
    with served_pair("hs", ca) as found:
        yield found


class Played:
    """The box of another release."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = self.say("")
        return found

    def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.say(json.dumps([verb, args]))
        return found

    def asked(self, verb: str) -> list[dict[str, Any]]:
        return [it["args"] for it in self.report()["questions"] if it["verb"] == verb]


@contextmanager
def played(place: Lab, name: str, facts: dict[str, Any], **script: Any) -> Iterator[Played]:
    """Box ``name`` is of another release, the other one is ours."""
    role = "primary" if name == "a" else "secondary"
    ends = {"role": role, "local": BOXES[name], "peer": BOXES[OTHER[name]], "key": KEY}
    whole = {"answers": {}, **ends, "facts": facts, **script}
    process = place.run(name, "ha_other_release.py", str(place.directory / name / "state"), json.dumps(whole))
    yield Played(process)


def linked(place: Lab, name: str) -> bool:
    return bool(place.status(name)["replication"]["linked"])


def messages(box: Lbfast) -> list[str]:
    return [str(record.get("message")) for record in box.call("events", limit=1000)["events"]]


def edited(place: Lab, label: str) -> str:
    return place.config().replace("Server 3", label)


def labels(box: Lbfast) -> list[str]:
    return [real["label"] for real in box.call("overview")["virtual_services"][0]["real_servers"]]


def test_the_release_before_this_one_as_the_secondary(place: Lab) -> None:
    answers = {"commit": {"ok": True}}
    with played(place, "b", BEFORE, beat=VERSION - 1, answers=answers) as old:
        place.start("a")
        a = place.boxes["a"]
        wait_for(lambda: linked(place, "a") and place.status("a")["replication"]["synced"], 20, "a resync")
        wait_for(lambda: place.state("a") == "active", 20, "its heartbeats to be heard")
        assert place.status("a")["heartbeats"]["foreign"] == 0
        assert any("0.0.9" in reason for reason in place.status("a")["reasons"])

        file = place.directory / "edited.toml"
        file.write_text(edited(place, "Server Three"))
        code, _, err = a.cli("commit", str(file), "--reason", "with an older peer")
        assert code == 0, err
        offers = old.asked("commit")
        assert len(offers) == 1
        assert set(offers[0]["wish"]) <= WISH, "it would refuse what it does not know"
        assert offers[0]["wish"]["reason"] == "with an older peer"
        found = old.ask("fetch")
        assert found["ok"], found
        assert set(found["wish"]) <= WISH
        assert "Server Three" in found["wish"]["text"]
        assert a.cli("drain", "Symphony", "Server 1")[0] == 0
        assert old.ask("marks")["marks"]["admin"], "admin state is asked for under its old name"
        assert a.cli("persistence", "pin", "Symphony", "10.1.2.3", "Server 2")[0] == 0
        wait_for(lambda: old.report()["frames"].get("E", 0) > 0, 20, "entries on the link")
        assert not {"history", "version", "candidate"} & {it["verb"] for it in old.report()["questions"]}


def test_the_release_before_this_one_as_the_primary(place: Lab) -> None:
    """It has no history to give and no candidate: what it has is taken over."""
    wish = {"text": edited(place, "Server Drei"), "ids": "[]", "file": "x", "by": "alice", "reason": "old"}
    facts = {**BEFORE, "generation": 3}
    answers = {"fetch": {"ok": True, "number": 3, "wish": wish}}
    with played(place, "a", facts, beat=VERSION, answers=answers) as old:
        place.start("b")
        b = place.boxes["b"]
        wait_for(lambda: labels(b)[-1] == "Server Drei", 20, "its configuration")
        assert b.call("history")["versions"][0]["by"] == "alice"
        once = len(old.asked("fetch"))
        seen = old.report()["frames"]["F"]
        wait_for(lambda: old.report()["frames"]["F"] >= seen + 3, 20, "three more descriptions")
        assert len(old.asked("fetch")) == once, "the same configuration is not taken over again and again"
        wish = {**wish, "text": edited(place, "Server Tres")}
        assert old.ask("commit", number=4, wish=wish) == {"ok": True}
        assert labels(b)[-1] == "Server Tres"


def test_the_release_after_this_one_may_say_more(place: Lab) -> None:
    """Unknown fields, frames and arguments are ignored; digests that it makes otherwise move nothing twice."""
    text = edited(place, "Server Drei")
    version = {"number": 5, "at": "2030-01-02T03:04:05+00:00", "by": "alice", "reason": "new", "file": "y"}
    version |= {"changes": ["a change"], "colour": "blue"}
    wish = {"text": text, "ids": "[]", "file": "y", "by": "alice", "reason": "new", "colour": "blue"}
    marks = {"version": 1, "admin": {}, "weights": {}, "pins": {}, "colours": {}}
    draft = {"text": edited(place, "Server X"), "base": 5, "colour": "blue"}
    draft["changes"] = [{"at": "2030-01-02T03:05:00+00:00", "by": "bob", "text": "renamed", "colour": "blue"}]
    facts = {**BEFORE, "version": "9.9", "protocol": PROTOCOL + 1, "generation": 7, "colour": {"of": "the box"}}
    facts |= {"marks": "f" * 64, "candidate": "e" * 64, "candidate_alone": False, "history": "d" * 64}
    earlier = {"number": 4, "at": "2030-01-01T00:00:00+00:00", "by": "carol", "digest": "c" * 64, "colour": "red"}
    answers = {
        "fetch": {"ok": True, "number": 7, "wish": wish, "version": version, "colour": "blue"},
        "history": {"ok": True, "versions": [earlier, {**earlier, "number": 5}]},
        "version": {
            "ok": True,
            "version": {**version, "number": 4, "by": "carol", "at": earlier["at"]},
            "text": place.config(),
        },
        "marks": {"ok": True, "marks": marks},
        "candidate": {"ok": True, "candidate": draft},
    }
    frames = [["X", {"colour": "blue"}], ["N", {"services": [], "reals": [], "colours": []}]]
    beat = {"beat": VERSION + 1, "tail": 16}
    with played(place, "a", facts, answers=answers, frames=frames, **beat) as new:
        place.start("b")
        b = place.boxes["b"]
        wait_for(lambda: labels(b)[-1] == "Server Drei", 20, "its configuration")
        wait_for(lambda: b.call("candidate")["is_changed"], 20, "its candidate")
        assert [(it["number"], it["by"], it["at"]) for it in b.call("history")["versions"]] == [
            (5, "alice", version["at"]),
            (4, "carol", earlier["at"]),
        ]
        assert b.call("candidate")["text"] == draft["text"]
        place.wait_states(b="passive")
        assert place.status("b")["heartbeats"]["foreign"] == 0
        wait_for(lambda: new.report()["facts"].get("digest_took") == facts["digest"], 20, "all of it to be taken over")
        wait_for(lambda: new.report()["facts"].get("candidate_took") == facts["candidate"], 20, "the candidate, too")
        once = len(new.report()["questions"])
        seen = new.report()["frames"]["F"]
        wait_for(lambda: new.report()["frames"]["F"] >= seen + 3, 20, "three more descriptions")
        assert len(new.report()["questions"]) == once, new.report()["questions"][once:]
        wish = {**wish, "text": edited(place, "Server Tres")}
        offer = {"number": 8, "wish": wish, "version": {**version, "number": 6}, "colour": "blue"}
        assert new.ask("commit", **offer) == {"ok": True}
        assert b.call("history")["version"] == 6


def reasons(place: Lab) -> str:
    return " ".join(place.status("b")["reasons"])


def test_two_releases_apart_is_refused_and_told(place: Lab) -> None:
    facts = {**BEFORE, "version": "9.9", "protocol": PROTOCOL + 2, "generation": 7}
    with played(place, "a", facts, beat=VERSION + 2) as far:
        place.start("b")
        b = place.boxes["b"]
        wait_for(lambda: far.report()["links"] >= 2, 30, "more than one try")
        wait_for(lambda: "update this box first" in reasons(place), 20, "the refusal")
        said = reasons(place)
        assert f"the peer has lbfast 9.9 (protocol {PROTOCOL + 2})" in said
        assert f"its heartbeats are of version {VERSION + 2}" in said
        assert far.asked("fetch") == []
        told = [message for message in messages(b) if "there is no replication: the peer has lbfast" in message]
        assert len(told) == 1, "told once, however often it is tried"
        assert labels(b)[-1] == "Server 3"


def test_the_lag_is_the_active_boxes_and_both_report_it(place: Lab) -> None:
    """A peer that acknowledges nothing is told what it lacks; a passive box repeats what it is told."""
    with played(place, "b", BEFORE, beat=VERSION, acknowledges=False) as behind:
        place.start("a")
        wait_for(lambda: linked(place, "a") and place.state("a") == "active", 20, "a link")
        assert place.boxes["a"].cli("persistence", "pin", "Symphony", "10.1.2.3", "Server 2")[0] == 0
        wait_for(lambda: behind.report()["facts"].get("lag", {}).get("entries") == 1, 20, "the entry that waits")
        wait_for(lambda: behind.report()["facts"]["lag"]["ms"] > LAG_MS, 20, "the wait to grow")
        found = place.status("a")["replication"]
        assert found["lag_entries"] == 1
        assert found["lag_ms"] > LAG_MS


def test_a_passive_box_reports_the_lag_that_it_is_told(place: Lab) -> None:
    with played(place, "a", {**BEFORE, "lag": {"entries": 7, "ms": LAG_MS + 1}}, beat=VERSION, frames=RESYNC):
        place.start("b")
        wait_for(lambda: linked(place, "b") and place.state("b") == "passive", 20, "a link")
        wait_for(lambda: place.status("b")["replication"]["lag_entries"] == 7, 20, "the active box's word")
        wait_for(lambda: place.status("b")["replication"]["synced"], 20, "the end of the resync")
        assert f"the replication lags by {LAG_MS + 1} ms" in place.status("b")["objections"]
