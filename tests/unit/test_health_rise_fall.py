"""Rise, fall and flap damping: every state against every event, then the stories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.health.rise_fall import (
    TRANSITIONS,
    Result,
    Rules,
    Signal,
    Stage,
    Verdict,
    adopt,
    judge,
    reinstate,
)
from lbfast.health.spec import FlapSpec
from lbfast.model.state import Health

OK, BAD, PASSIVE = Result.SUCCESS, Result.FAILURE, Result.PASSIVE
RULES = Rules(rise=3, fall=3, flap=FlapSpec(threshold=2, window_ms=1_000_000, hold_ms=100, max_hold_ms=400))


NEW = Verdict()


def play(results: str, rules: Rules = RULES, verdict: Verdict = NEW, now_ms: int = 0) -> Verdict:
    """One result a millisecond: ``+`` success, ``-`` failure, ``p`` passive failure."""
    for letter in results:
        now_ms += 1
        verdict = judge(verdict, rules, {"+": OK, "-": BAD, "p": PASSIVE}[letter], now_ms)
    return verdict


# how to come to each stage, with the streak it has there
WAY = {
    Stage.CHECKING: "",
    Stage.UP: "+",
    Stage.FALLING: "+-",
    Stage.DOWN: "-",
    Stage.RISING: "-+",
    Stage.HELD: "+---+++---+++",  # second fall of two: held for 100 ms
}
EXPECTED = {
    (Stage.CHECKING, OK): Stage.UP,
    (Stage.CHECKING, BAD): Stage.DOWN,
    (Stage.CHECKING, PASSIVE): Stage.CHECKING,
    (Stage.UP, OK): Stage.UP,
    (Stage.UP, BAD): Stage.FALLING,
    (Stage.UP, PASSIVE): Stage.FALLING,
    (Stage.FALLING, OK): Stage.UP,
    (Stage.FALLING, BAD): Stage.FALLING,  # 2 of 3
    (Stage.FALLING, PASSIVE): Stage.FALLING,
    (Stage.DOWN, OK): Stage.RISING,
    (Stage.DOWN, BAD): Stage.DOWN,
    (Stage.DOWN, PASSIVE): Stage.DOWN,
    (Stage.RISING, OK): Stage.RISING,  # 2 of 3
    (Stage.RISING, BAD): Stage.DOWN,
    (Stage.RISING, PASSIVE): Stage.RISING,
    (Stage.HELD, OK): Stage.HELD,
    (Stage.HELD, BAD): Stage.DOWN,
    (Stage.HELD, PASSIVE): Stage.HELD,
}


def test_every_stage_and_every_result_is_covered() -> None:
    assert set(EXPECTED) == {(stage, result) for stage in Stage for result in Result}
    assert set(TRANSITIONS) == set(Stage)


@pytest.mark.parametrize(("stage", "result"), EXPECTED)
def test_stage_times_result(stage: Stage, result: Result) -> None:
    before = play(WAY[stage])
    assert before.stage is stage
    after = judge(before, RULES, result, 20)
    assert after.stage is EXPECTED[stage, result]
    if after.health is before.health:
        assert after.since_ms == before.since_ms
    else:
        assert after.since_ms == 20


@pytest.mark.parametrize("stage", [Stage.CHECKING, Stage.DOWN, Stage.RISING, Stage.HELD])
def test_late_news_changes_nothing_at_all(stage: Stage) -> None:
    before = play(WAY[stage])
    assert judge(before, RULES, PASSIVE, 20) == before


def test_the_table_is_reachable_and_closed() -> None:
    """Each transition of the table is taken by some short history, and no history asks for one that is missing."""
    taken: set[tuple[Stage, Stage]] = set()
    for rise, fall in ((1, 1), (2, 3)):
        rules = Rules(rise, fall, FlapSpec(threshold=1, window_ms=1, hold_ms=4, max_hold_ms=4))
        todo, seen = [(Verdict(), 0)], {Verdict()}
        for _ in range(12):
            grown = []
            for verdict, now_ms in todo:
                for result in Result:
                    after = judge(verdict, rules, result, now_ms + 1)
                    taken.add((verdict.stage, after.stage))
                    if after not in seen:
                        seen.add(after)
                        grown.append((after, now_ms + 1))
            todo = grown[:500]
    assert taken == {(stage, target) for stage, row in TRANSITIONS.items() for target in row.values()}


def test_first_result_decides() -> None:
    assert play("+").health is Health.UP
    assert play("-").health is Health.DOWN


def test_rise_and_fall_count_results_in_a_row() -> None:
    assert play("+--+--").health is Health.UP
    assert play("+---").health is Health.DOWN
    assert play("-++-++").health is Health.DOWN
    assert play("-+++").health is Health.UP


@pytest.mark.parametrize("results", ["+p-", "+-p", "+pp"])
def test_a_passive_failure_counts_as_one(results: str) -> None:
    rules = Rules(2, 2, FlapSpec())
    verdict = play(results, rules)
    assert verdict.health is Health.DOWN
    assert verdict.confirmed
    assert verdict.fell
    assert verdict.failing_since_ms == 2


def test_success_forgets_the_streak() -> None:
    verdict = play("+p+")
    assert (verdict.confirmed, verdict.failing_since_ms, verdict.fell) == (False, None, False)


def test_down_at_the_first_probe_is_no_fall() -> None:
    assert not play("---").fell
    assert play("---").flaps == 0


def test_hold_grows_exponentially_and_is_bounded() -> None:
    verdict, now_ms, holds = play("+"), 1, []
    for _ in range(40):
        for result in (BAD, BAD, BAD):
            now_ms += 1
            verdict = judge(verdict, RULES, result, now_ms)
        holds.append(max(0, verdict.hold_until_ms - now_ms))
        while verdict.health is Health.DOWN:
            now_ms += 1
            verdict = judge(verdict, RULES, OK, now_ms)
    assert holds[:5] == [0, 100, 200, 400, 400]
    assert set(holds[3:]) == {400}


def test_hold_ends_with_the_first_success_after_it() -> None:
    held = play(WAY[Stage.HELD])
    assert judge(held, RULES, OK, held.hold_until_ms - 1).stage is Stage.HELD
    assert judge(held, RULES, OK, held.hold_until_ms).stage is Stage.UP


def test_no_hold_when_nobody_else_is_up() -> None:
    held = play(WAY[Stage.HELD])
    assert judge(held, RULES, OK, 20, may_hold=False).stage is Stage.UP


def test_staying_up_long_enough_forgets_falls() -> None:
    verdict = play("+---+++")
    assert verdict.flaps == 1
    later = verdict.since_ms + RULES.flap.window_ms
    assert play("---", verdict=verdict, now_ms=later).flaps == 1
    assert play("---", verdict=verdict, now_ms=later - 10).flaps == 2


def test_threshold_zero_turns_damping_off() -> None:
    rules = Rules(1, 1, FlapSpec(threshold=0))
    assert play("+-" * 50 + "+", rules).health is Health.UP


def test_adopt_goes_on_from_what_stands() -> None:
    for health in Health:
        assert adopt(health, 7).health is health
        assert adopt(health, 7).since_ms == 7
    assert play("--", verdict=adopt(Health.UP, 0)).health is Health.UP
    assert play("---", verdict=adopt(Health.UP, 0)).health is Health.DOWN
    assert play("++", verdict=adopt(Health.DOWN, 0)).health is Health.DOWN


def test_reinstate_takes_a_fall_back() -> None:
    verdict = reinstate(play("+---"), 9)
    assert (verdict.stage, verdict.flaps, verdict.hold_until_ms, verdict.since_ms) == (Stage.UP, 0, 0, 9)


@given(st.text("+-p", max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_verdict_follows_the_definition(results: str, rise: int, fall: int) -> None:
    """Against a plain reading of the rules, without damping."""
    up: bool | None = None
    run = ""
    for letter in results:
        if letter == "p" and not up:
            continue
        same = run and (run[-1] == "+") == (letter == "+")
        run = run + letter if same else letter
        if up is None:
            up, run = letter == "+", letter
        elif up and letter != "+" and len(run) >= fall:
            up = False
        elif not up and letter == "+" and len(run) >= rise:
            up, run = True, ""
    verdict = play(results, Rules(rise, fall, FlapSpec(threshold=0)))
    assert verdict.health is {None: Health.UNKNOWN, True: Health.UP, False: Health.DOWN}[up]


def test_signals_are_all_used() -> None:
    assert {signal for row in TRANSITIONS.values() for signal in row} == set(Signal)
