"""When is a worker hung?  Pure: looks and clocks are arguments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbfast.supervisor.watchdog import HUNG_AFTER, LOOK_EVERY, Look, silence

LOOKS = st.builds(Look, st.just(7), st.sampled_from("RSDTtZX"), st.none() | st.floats(0, 1e6))
LONG = st.floats(0, 1e6)


@given(LOOKS, LOOKS, LONG, LONG)
def test_a_turn_of_the_loop_ends_the_silence(before: Look, now: Look, silent: float, elapsed: float) -> None:
    assert silence(before, Look(8, now.state, now.cpu), silent, elapsed) == 0


@given(LOOKS, LOOKS, LONG, LONG)
def test_one_look_is_never_enough(before: Look, now: Look, silent: float, elapsed: float) -> None:
    """However long the machine was suspended or the supervisor was late: HUNG_AFTER takes several looks."""
    after = silence(before, now, silent, elapsed)
    assert silent <= after <= silent + 1.0 < silent + HUNG_AFTER


def after_looks(states: str, burned: float, elapsed: float = LOOK_EVERY) -> float:
    silent, before = 0.0, Look(7)
    for turn, state in enumerate(states):
        now = Look(7, state, turn * burned)
        silent, before = silence(before, now, silent, elapsed), now
    return silent


def test_who_wants_to_run_and_may_not_is_never_hung() -> None:
    assert after_looks("R" * 10_000, burned=0.0) == 0


def test_stopped_asleep_and_running_in_circles_are_found_in_time() -> None:
    for states, burned in (("T" * 11, 0.0), ("S" * 11, 0.0), ("D" * 11, 0.0), ("R" * 12, LOOK_EVERY)):
        assert after_looks(states, burned) >= HUNG_AFTER, states
        assert after_looks(states[:9], burned) < HUNG_AFTER, states


def test_who_is_being_debugged_is_left_alone() -> None:
    assert after_looks("t" * 1000, burned=1.0) == 0
