"""The mass-failure guard, alone and inside the verdicts of a service."""

from __future__ import annotations

import pytest

from lbfast.health.mass import Guard, Standing, engage, has_expired, passed, release
from lbfast.health.rise_fall import Result, Rules
from lbfast.health.service_health import Change, Notice, ServiceHealth
from lbfast.health.spec import FlapSpec
from lbfast.model.state import Health

UP = Standing(is_up=True, failing_since_ms=None, confirmed=False, fell=False)
WINDOW, GRACE = 6_000, 60_000
OK, BAD, PASSIVE = Result.SUCCESS, Result.FAILURE, Result.PASSIVE


def failing(since_ms: int, *, up: bool = False, confirmed: bool = False, fell: bool | None = None) -> Standing:
    return Standing(up, since_ms, confirmed, not up if fell is None else fell)


def test_all_failing_together_is_guarded() -> None:
    standings = {1: failing(100), 2: failing(200, up=True), 3: failing(6_100, up=True)}
    assert engage(standings, 1, 7_000, WINDOW, GRACE) == Guard(frozenset({1, 2, 3}), 67_000)


def test_servers_that_fell_just_before_belong_to_it() -> None:
    standings = {1: failing(100), 2: failing(200), 3: failing(300)}
    guard = engage(standings, 3, 7_000, WINDOW, GRACE)
    assert guard is not None
    assert guard.reals == {1, 2, 3}


@pytest.mark.parametrize(
    ("why", "standings"),
    [
        ("one server still passes", {1: failing(100), 2: UP}),
        ("only one server is there", {1: failing(100)}),
        ("the other was down long ago", {1: failing(100_000), 2: failing(100)}),
        ("the other was never up", {1: failing(100), 2: failing(150, fell=False)}),
        ("not at the same moment", {1: failing(100), 2: failing(6_101, up=True)}),
        ("clients confirm all", {1: failing(100, confirmed=True), 2: failing(150, up=True, confirmed=True)}),
    ],
)
def test_not_guarded(why: str, standings: dict[int, Standing]) -> None:
    assert engage(standings, 1, 200_000, WINDOW, GRACE) is None, why


def test_no_grace_configured_means_no_guard() -> None:
    assert engage({1: failing(1), 2: failing(2)}, 1, 3, WINDOW, 0) is None


def test_confirmed_servers_get_no_grace() -> None:
    guard = engage({1: failing(100), 2: failing(150, confirmed=True)}, 1, 200, WINDOW, GRACE)
    assert guard is not None
    assert guard.reals == {1}


def test_leaving_the_guard() -> None:
    guard = Guard(frozenset({1, 2}), 60_000)
    assert release(guard, 1) == Guard(frozenset({2}), 60_000)
    assert passed(guard, 1, 10_000, WINDOW) == Guard(frozenset({2}), 16_000)
    assert passed(guard, 1, 59_000, WINDOW) == Guard(frozenset({2}), 60_000)
    assert release(Guard(frozenset({1}), 5), 1) is None
    assert not has_expired(guard, 59_999)
    assert has_expired(guard, 60_000)


def service(reals: int = 3, fall: int = 2) -> ServiceHealth:
    health = ServiceHealth("Symphony", WINDOW, GRACE)
    for real in range(reals):
        health.add(real, f"S{real}", Rules(2, fall, FlapSpec()))
        health.report(real, OK, "connected", real)
    return health


def transitions(found: list[Change | Notice]) -> list[tuple[int, Health]]:
    return [(item.real, item.after) for item in found if isinstance(item, Change) and item.before is not item.after]


def notices(found: list[Change | Notice]) -> list[str]:
    return [item.message for item in found if isinstance(item, Notice)]


def fail_all(health: ServiceHealth, now_ms: int, reals: int = 3) -> list[Change | Notice]:
    found: list[Change | Notice] = []
    for round_ in range(2):
        for real in range(reals):
            found += health.report(real, BAD, "no answer", now_ms + 4_000 * round_ + real)
    return found


def test_all_fail_nobody_goes_down_and_it_is_said_once() -> None:
    health = service()
    found = fail_all(health, 10_000)
    assert transitions(found) == []
    assert len(notices(found)) == 1
    assert "ALL servers" in notices(found)[0]
    assert health.deadline_ms() == 74_000
    reasons = {item.real: item.reason for item in found if isinstance(item, Change)}
    assert all(reason.startswith("all servers fail, kept up for now") for reason in reasons.values())


def test_grace_ends_then_they_go_down() -> None:
    health = service()
    fail_all(health, 10_000)
    assert health.expire(73_999) == []
    found = health.expire(74_000)
    assert sorted(transitions(found)) == [(0, Health.DOWN), (1, Health.DOWN), (2, Health.DOWN)]
    assert "grace is over" in notices(found)[0]
    assert health.deadline_ms() is None
    assert transitions(fail_all(health, 80_000)) == []
    assert health.deadline_ms() is None  # no second grace for servers that are down


def test_recovery_in_grace_needs_no_rise_and_no_transition() -> None:
    health = service()
    fail_all(health, 10_000)
    found = [item for real in range(3) for item in health.report(real, OK, "connected", 20_000 + real)]
    assert transitions(found) == []
    assert health.deadline_ms() is None
    assert all(health.verdict(real).health is Health.UP and health.verdict(real).flaps == 0 for real in range(3))


def test_one_recovers_the_others_get_one_window_more() -> None:
    health = service()
    fail_all(health, 10_000)
    health.report(0, OK, "connected", 20_000)
    assert health.deadline_ms() == 26_000
    assert sorted(transitions(health.expire(26_000))) == [(1, Health.DOWN), (2, Health.DOWN)]
    assert health.verdict(0).health is Health.UP


def test_a_client_that_is_refused_ends_the_grace_of_that_server() -> None:
    health = service()
    fail_all(health, 10_000)
    found = health.report(1, PASSIVE, "connects of clients fail: Connection refused", 20_000)
    assert transitions(found) == [(1, Health.DOWN)]
    assert "no grace" in notices(found)[0]
    assert health.deadline_ms() == 74_000


def test_refused_before_the_fall_is_no_guard_for_that_one() -> None:
    health = service(2)
    for real in range(2):
        health.report(real, PASSIVE, "refused", 10_000)
    found = health.report(0, BAD, "refused", 10_001) + health.report(1, BAD, "refused", 10_002)
    assert transitions(found) == [(0, Health.DOWN), (1, Health.DOWN)]
    assert health.deadline_ms() is None


def test_single_server_goes_down() -> None:
    health = service(1)
    assert transitions(fail_all(health, 10_000, 1)) == [(0, Health.DOWN)]


def test_fall_of_one_reinstates_those_that_fell_before() -> None:
    """With fall = 1 the first goes down before the others were probed; it comes back with the guard."""
    health = service(2, fall=1)
    assert transitions(health.report(0, BAD, "no answer", 10_000)) == [(0, Health.DOWN)]
    assert transitions(health.report(1, BAD, "no answer", 11_000)) == [(0, Health.UP)]


def test_the_fallback_server_is_not_counted() -> None:
    health = service(2)
    health.add(9, "fallback", Rules(2, 2, FlapSpec()), guarded=False)
    health.report(9, OK, "connected", 5)
    assert transitions(fail_all(health, 10_000, 2)) == []
    assert health.deadline_ms() is not None
    found = health.report(9, BAD, "gone", 30_000) + health.report(9, BAD, "gone", 34_000)
    assert transitions(found) == [(9, Health.DOWN)]


def test_reasons_tell_the_streak() -> None:
    health = service()
    (change,) = health.report(0, BAD, "no answer", 10_000)
    assert isinstance(change, Change)
    assert (change.after, change.reason) == (Health.UP, "failed 1 of 2: no answer")
    (change,) = health.report(0, BAD, "no answer", 14_000)
    assert isinstance(change, Change)
    assert (change.after, change.reason) == (Health.DOWN, "no answer")
    assert health.report(0, BAD, "no answer", 18_000) == []
    (change,) = health.report(0, OK, "connected", 22_000)
    assert isinstance(change, Change)
    assert (change.after, change.reason) == (Health.DOWN, "passed 1 of 2: connected")


def test_adopted_verdicts_publish_nothing() -> None:
    health = ServiceHealth("S", WINDOW, GRACE)
    for real, verdict in ((0, Health.UP), (1, Health.DOWN)):
        health.add(real, str(real), Rules(2, 2, FlapSpec()))
        health.adopt(real, verdict, 5, "connected" if real == 0 else "refused")
    assert health.has_verdict(0)
    assert health.report(0, OK, "connected", 10) == []
    assert health.report(1, BAD, "refused", 10) == []
