"""The election table row by row, the orders of operators, and what people are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lbfast.ha.election import (
    CONDITIONS,
    TABLE,
    Beat,
    HaState,
    Memory,
    Probe,
    Standing,
    Surroundings,
    decide,
    ha_state,
    hear,
    make_beat,
    needs_probe,
    order_takeover,
)
from lbfast.ha.election_model import render_model
from lbfast.ha.election_page import BEGIN, END, render_page
from lbfast.ha.timing import Timing, make_timing

P, C, A = Standing.PASSIVE, Standing.CLAIMING, Standing.ACTIVE
TIMING = Timing()
GOOD = Surroundings(3)
US = Memory(life=2, is_primary=True, started_at=0, claim=7)
NOW = 100_000
THEM = Beat(life=1, standing=P, level=3, is_primary=False, hears=True)


def met(ours: Standing = P, ago: int = 10, since: int = NOW - 1000, **beat: object) -> Memory:
    """We stand so, and heard this of the peer."""
    memory = hear(US, replace(THEM, **beat), NOW - ago)  # type: ignore[arg-type]
    return replace(memory, standing=ours, since=since, moved_at=None)


def after(memory: Memory, around: Surroundings = GOOD) -> Standing:
    return decide(memory, around, NOW, TIMING)[0].standing


SILENCE = 400


@pytest.mark.parametrize(
    ("memory", "around", "becomes"),
    [
        (met(P, SILENCE), Surroundings(3, probe=Probe.FREE), C),
        (met(P, SILENCE), Surroundings(3, probe=Probe.TAKEN), P),
        (met(P, SILENCE), Surroundings(3, probe=Probe.NONE), P),
        (met(P, SILENCE), Surroundings(0, probe=Probe.FREE), P),
        (met(P, SILENCE), Surroundings(1, is_cut_off=True, probe=Probe.FREE), P),
        (replace(US, started_at=NOW - 500), Surroundings(3, probe=Probe.FREE), P),
        (met(P, standing=A, is_primary=False), GOOD, P),
        (met(P, standing=A, level=0), GOOD, C),
        (met(P, standing=A, level=2), GOOD, C),
        (replace(met(P, standing=A, level=2), moved_at=NOW - 1000), GOOD, P),
        (met(P, standing=C, claim=3), GOOD, P),
        (met(P, is_leaving=True), GOOD, A),  # claims and takes in one go: nobody else can
        (met(P, level=4), GOOD, P),
        (met(C, granted=7), GOOD, A),
        (met(C, since=NOW - 10, granted=6), GOOD, C),
        (met(C, since=NOW - 10, granted=7), Surroundings(0), P),
        (met(C, SILENCE, NOW - 10), Surroundings(3, probe=Probe.FREE), C),
        (met(C, SILENCE), Surroundings(3, probe=Probe.FREE), A),
        (met(C, SILENCE), Surroundings(3, probe=Probe.TAKEN), P),
        (met(C, since=NOW - 10, standing=C, level=4), GOOD, P),
        (met(C, since=NOW - 10, standing=C), GOOD, C),
        (met(C, since=NOW - 10, standing=A), GOOD, P),
        (met(C, since=NOW - 10, standing=A, level=0), GOOD, C),
        (met(C, hears=False), replace(GOOD, probe=Probe.FREE), A),
        (met(C, hears=False), replace(GOOD, probe=Probe.TAKEN), C),
        (met(C, standing=A, level=0), GOOD, C),  # the claim is old, but its cause stands: claimed anew
        (met(A, SILENCE), GOOD, A),
        (met(A, SILENCE), Surroundings(1, is_cut_off=True), P),
        (met(A), Surroundings(1, is_cut_off=True), P),
        (met(A), Surroundings(0), P),
        (met(A, level=1), Surroundings(0), A),  # the peer could not serve either
        (met(A, SILENCE), Surroundings(0), P),
        (met(A, standing=C, claim=3), GOOD, A),
        (met(A, standing=C, claim=3, is_ordered=True), GOOD, P),
        (met(A, standing=C, claim=3, hears=False), GOOD, P),
        (met(A, standing=C, claim=3), Surroundings(0), P),
        (met(A, standing=A), GOOD, A),
        (met(A, standing=A, level=4), GOOD, P),
        (met(A, standing=A, hears=False), GOOD, P),
        (met(A), Surroundings(3, is_stopping=True), P),
    ],
)
def test_what_a_box_becomes(memory: Memory, around: Surroundings, becomes: Standing) -> None:
    assert after(memory, around) is becomes


def test_every_condition_of_the_table_is_one_of_the_facts() -> None:
    used = {name for rows in TABLE.values() for row in rows for name in row.when}
    assert used <= set(CONDITIONS)


def test_an_order_is_a_claim_that_an_active_peer_yields_to() -> None:
    ordered = order_takeover(met(P, standing=A), NOW)
    claiming, moves = decide(ordered, GOOD, NOW, TIMING)
    assert claiming.standing is C
    assert moves[0].because == "takeover was ordered"
    said = make_beat(claiming, GOOD, NOW, TIMING)
    assert (said.is_ordered, said.claim) == (True, claiming.claim)
    theirs = hear(replace(US, life=1, is_primary=False, standing=A), said, NOW)
    theirs, _ = decide(theirs, GOOD, NOW, TIMING)
    assert theirs.standing is P
    granted = make_beat(theirs, GOOD, NOW, TIMING)
    assert granted.granted == claiming.claim
    assert after(hear(claiming, granted, NOW)) is A


def test_an_order_is_forgotten() -> None:
    ordered = order_takeover(met(P, standing=A), NOW - TIMING.order_ms)
    assert after(ordered) is P


def test_a_claim_is_granted_only_while_passive() -> None:
    for standing in (C, A):
        said = make_beat(met(standing, standing=C, claim=3), GOOD, NOW, TIMING)
        assert said.granted == 0
    assert make_beat(met(P, standing=C, claim=3), GOOD, NOW, TIMING).granted == 3
    assert make_beat(met(P, SILENCE, standing=C, claim=3), GOOD, NOW, TIMING).granted == 0, "an old claim"


def test_the_network_is_asked_from_the_first_suspicion() -> None:
    assert not needs_probe(met(P, TIMING.suspect_ms - 1), GOOD, NOW, TIMING)
    assert needs_probe(met(P, TIMING.suspect_ms), GOOD, NOW, TIMING)
    assert not needs_probe(met(A, 1000), GOOD, NOW, TIMING)
    assert not needs_probe(met(P, 1000), Surroundings(0), NOW, TIMING)


@pytest.mark.parametrize(
    ("memory", "word"),
    [
        (met(A), HaState.ACTIVE),
        (met(A, SILENCE), HaState.ALONE),
        (met(A, is_leaving=True), HaState.ALONE),
        (met(P, standing=A), HaState.PASSIVE),
        (met(P), HaState.UNKNOWN),
        (met(P, SILENCE, standing=A), HaState.UNKNOWN),
    ],
)
def test_the_word_for_people(memory: Memory, word: HaState) -> None:
    assert ha_state(memory, NOW, TIMING) is word


def test_times_follow_from_interval_and_missed() -> None:
    timing = make_timing(100, 3)
    assert (timing.dead_ms, timing.suspect_ms, timing.claim_ms) == (300, 150, 50)
    assert timing.takeover_ms == (250, 350)
    slow = make_timing(1000, 5)
    assert (slow.dead_ms, slow.listen_ms, slow.order_ms, slow.settle_ms) == (5000, 10_000, 20_000, 50_000)


def test_the_page_shows_this_very_table() -> None:
    page = Path("docs/ha.md").read_text()
    shown = page[page.index(BEGIN) : page.index(END)]
    assert shown == BEGIN + "\n" + render_page(), "run `python -m lbfast.ha.election_page docs/ha.md`"


def test_the_model_for_spin_is_of_this_very_table() -> None:
    made = Path("docs/model/pair.pml").read_text()
    assert made == render_model(), "run `python -m lbfast.ha.election_model docs/model/pair.pml`, then spin: docs/ha.md"
