"""What an operator had at hand on the dead box is at hand on the other one: history, candidate, admin state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import trustme
from ha_lab import BOXES, Lab, served_pair
from harness import Lbfast, scaled, wait_for

from lbfast.control.protocol import ControlError

pytestmark = pytest.mark.root


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with served_pair("hk", ca) as found:
        yield found


def history(box: Lbfast) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = box.call("history")["versions"]
    return found


def texts(box: Lbfast) -> dict[int, list[str]]:
    """Of each version, as against the first one."""
    numbers = sorted(it["number"] for it in history(box))
    return {it: [str(line) for line in box.call("diff", before=numbers[0], after=it)["lines"]] for it in numbers}


def candidate(box: Lbfast) -> dict[str, Any]:
    return {key: value for key, value in box.call("candidate").items() if key != "edited_on"}


def same_candidate(pair: Lab) -> bool:
    return candidate(pair.boxes["a"]) == candidate(pair.boxes["b"])


def rename(box: Lbfast, real: str, label: str) -> None:
    operation = {"op": "change_real", "service": "Symphony", "real": real, "settings": {"label": label}}
    report = box.call("candidate_edit", operations=[operation])
    assert report["accepted"], report["problems"]


def commit(pair: Lab, name: str, reason: str, *change: str, options: Sequence[str] = ()) -> None:
    file = pair.directory / f"{reason}.toml"
    file.write_text(pair.config().replace(*change))
    code, _, err = pair.boxes[name].cli("commit", str(file), "--reason", reason, *options)
    assert code == 0, err


def waits(box: Lbfast) -> int | None:
    """The version that waits to be confirmed."""
    found = box.call("history")["unconfirmed"]
    return None if found is None else int(found["version"])


def commit_and_lose(pair: Lab, seconds: int) -> Lbfast:
    """A commit on box a that waits to be confirmed, and box a is no more; the other one."""
    pair.start_pair()
    pair.wait_ready()
    commit(pair, "a", "tried", "Server 3", "Server Three", options=("--confirm", f"{scaled(seconds):.0f}s"))
    b = pair.boxes["b"]
    assert waits(b) == b.call("history")["version"]
    pair.kill_box("a")
    pair.wait_states(b="alone")
    return b


def grow_apart(pair: Lab) -> None:
    """Each box alone, each with commits of its own, before they hear each other for the first time."""
    for name in ("a", "b"):
        for cable in ("lan", "hb"):
            pair.cut(name, cable)
    pair.start("a", "b")
    commit(pair, "b", "lone", "Server 2", "Server Zwei")
    commit(pair, "a", "one", "Server 3", "Server Drei")
    commit(pair, "a", "two", "Server 3", "Server Tres")
    rename(pair.boxes["b"], "Server Zwei", "Server Dos")
    rename(pair.boxes["a"], "Server Tres", "Server Three")
    for name in ("a", "b"):
        for cable in ("lan", "hb"):
            pair.mend(name, cable)
    pair.wait_ready(40)


def test_the_other_box_goes_on_where_the_dead_one_was(pair: Lab) -> None:
    pair.start_pair()
    pair.wait_ready()
    a, b = pair.boxes["a"], pair.boxes["b"]
    commit(pair, "a", "first", "Server 3", "Server Three")
    commit(pair, "a", "second", "Server 2", "Server Two")
    assert a.cli("revert", "--reason", "not now")[0] == 0
    pair.wait_one_history()
    found = history(b)
    assert [it["reason"] for it in found[:3]] == ["not now", "second", "first"]
    assert [it["running"] for it in found] == [True] + [False] * (len(found) - 1)
    assert texts(a) == texts(b)

    rename(a, "Server Three", "Server Drei")
    wait_for(lambda: candidate(b)["is_changed"] and same_candidate(pair), 20, "the candidate over there")
    assert [it["text"] for it in candidate(b)["changes"]] != []
    for verb, args in (
        ("candidate_edit", {"operations": [{"op": "delete_service", "service": "Symphony"}]}),
        ("candidate_commit", {}),
        ("candidate_discard", {}),
    ):
        pair.wait_states(b="passive")
        with pytest.raises(ControlError, match=f"do it on the primary, {BOXES['a']}"):
            b.call(verb, **args)

    pair.kill_box("a")
    pair.wait_states(b="alone")
    before = candidate(b)
    assert not before["is_outdated"]
    rename(b, "Server 2", "Server Zwei")
    report = b.call("candidate_commit", reason="both renamed")
    assert report["before"] == before["version"]
    rename(b, "Server 1", "Server Eins")

    pair.revive("a")
    pair.start("a")
    wait_for(lambda: pair.has_one_history() and same_candidate(pair), 30, "the box that was dead to catch up")
    a = pair.boxes["a"]
    assert history(a)[0]["reason"] == "both renamed"
    assert candidate(a)["is_changed"], "what was edited while it was away is the candidate now"
    assert a.call("candidate_discard")["is_changed"] is False
    wait_for(lambda: not candidate(b)["is_changed"], 20, "nothing to commit over there either")


def test_boxes_that_grew_apart_have_the_primarys_history_and_lose_nothing(pair: Lab) -> None:
    """The one with more commits wins; what the other one had is beside its history."""
    grow_apart(pair)
    a, b = pair.boxes["a"], pair.boxes["b"]
    pair.wait_one_history(30)
    wait_for(lambda: same_candidate(pair), 30, "one candidate")
    assert [it["reason"] for it in history(b)[:2]] == ["two", "one"]
    assert "Server Three" in candidate(b)["text"]
    assert texts(a) == texts(b)
    state = pair.directory / "b" / "state"
    aside = [path.read_text() for path in sorted((state / "versions-aside").glob("*.toml"))]
    assert [("Server Zwei" in text) for text in aside] == [True]
    told = b.call("events", limit=1000)["events"]
    assert any("of this box alone is kept in" in str(record.get("message")) for record in told)


def test_a_restart_runs_what_the_pair_ran_although_the_file_is_older(pair: Lab) -> None:
    """The history is the primary's, with the primary's file in it; the secondary's own file is no news all the same."""
    pair.start_pair()
    pair.wait_ready()
    commit(pair, "a", "first", "Server 3", "Server Three")
    pair.wait_one_history()
    kept = history(pair.boxes["b"])
    pair.kill_box("a")
    pair.wait_states(b="alone")
    pair.boxes["b"].stop()
    pair.start("b")
    assert history(pair.boxes["b"]) == kept
    labels = [real["label"] for real in pair.boxes["b"].call("overview")["virtual_services"][0]["real_servers"]]
    assert labels == ["Server 1", "Server 2", "Server Three"]


def test_what_waits_on_the_dead_box_reverts_on_the_other_one(pair: Lab) -> None:
    """Nobody confirms: what may have cut its maker off goes, although the box that he gave it to is dead."""
    b = commit_and_lose(pair, 12)
    assert "Server Three" in str(b.call("overview"))
    wait_for(lambda: waits(b) is None, 60, "the end of the wait")
    assert history(b)[0]["reason"].endswith("was not confirmed")
    assert "Server Three" not in str(b.call("overview"))
    pair.revive("a")
    pair.start("a")
    pair.wait_one_history(30)
    assert waits(pair.boxes["a"]) is None
    assert "Server Three" not in str(pair.boxes["a"].call("overview"))


def test_what_was_confirmed_on_the_other_box_stands(pair: Lab) -> None:
    """Also on the one that comes back after its deadline and does not know it yet."""
    b = commit_and_lose(pair, 60)
    assert b.call("confirm")
    state = pair.directory / "a" / "state" / "confirm.json"
    past = json.loads(state.read_text()) | {"deadline_at": "2026-01-01T00:00:00+00:00"}
    state.write_text(json.dumps(past))
    pair.revive("a")
    pair.start("a")
    wait_for(lambda: waits(pair.boxes["a"]) is None and pair.has_one_history(), 30, "the news")
    assert "Server Three" in str(pair.boxes["a"].call("overview"))
    assert history(b)[0]["reason"] == "tried"


def test_confirmed_or_reverted_on_one_is_on_both(pair: Lab) -> None:
    pair.start_pair()
    pair.wait_ready()
    a, b = pair.boxes["a"], pair.boxes["b"]
    commit(pair, "a", "first", "Server 3", "Server Three", options=("--confirm", "1h"))
    assert waits(b) == waits(a)
    pair.wait_states(b="passive")
    with pytest.raises(ControlError, match=f"do it on the primary, {BOXES['a']}"):
        b.call("confirm")
    a.call("confirm")
    wait_for(lambda: waits(b) is None, 20, "the other box to hear of it")
    commit(pair, "a", "second", "Server 3", "Server Drei", options=("--confirm", f"{scaled(20):.0f}s"))
    assert waits(b) == a.call("history")["version"]
    wait_for(lambda: waits(a) is None and waits(b) is None and pair.has_one_history(), 60, "its end on both")
    assert [it["reason"] for it in history(b)[1:3]] == ["second", "first"]
    assert "Server Three" in str(b.call("overview"))


def test_what_was_confirmed_beats_a_revert_of_a_box_that_was_cut_off(pair: Lab) -> None:
    """It waited alone, and did what nobody was there to prevent: back in touch it does as the pair has decided."""
    pair.start_pair()
    pair.wait_ready()
    a, b = pair.boxes["a"], pair.boxes["b"]
    commit(pair, "a", "tried", "Server 3", "Server Three", options=("--confirm", f"{scaled(20):.0f}s"))
    assert waits(b) == a.call("history")["version"]
    for cable in ("lan", "hb"):
        pair.cut("b", cable)
    wait_for(lambda: pair.state("a") == "alone", 20, "the cut to be noticed")
    a.call("confirm")
    wait_for(lambda: waits(b) is None, 60, "the other box to revert")
    for cable in ("lan", "hb"):
        pair.mend("b", cable)
    pair.wait_ready(60)
    pair.wait_one_history(30)
    assert history(b)[0]["reason"] == "tried"
    for box in (a, b):
        assert "Server Three" in str(box.call("overview"))
