"""What a box sees becomes a level that does not flutter; automatic failback; readiness."""

from __future__ import annotations

import pytest

from lbfast.ha.failback import Failback, is_in_window
from lbfast.ha.fitness import (
    BETTER_AFTER_MS,
    CANNOT_SERVE,
    CUT_OFF,
    NO_SERVERS,
    SOME_PINGS,
    WELL,
    WORSE_AFTER_MS,
    Sight,
    Steady,
    judge,
)
from lbfast.ha.status import BoxFacts, judge_readiness
from lbfast.model.pair import HaSettings


@pytest.mark.parametrize(
    ("sight", "level", "is_cut_off", "reason"),
    [
        (Sight(), WELL, False, ""),
        (Sight(hung=(1,)), CANNOT_SERVE, False, "worker 1 does not move on"),
        (Sight(dead=("10.0.0.1:443",)), CANNOT_SERVE, False, "does not answer although it is held here"),
        (Sight(is_in_maintenance=True), CANNOT_SERVE, False, "maintenance"),
        (Sight(without_carrier=("eth0",)), CUT_OFF, True, "no carrier on eth0"),
        (Sight(pings=0, pings_known=2), CUT_OFF, True, "no ping address answers"),
        (Sight(pings=0, pings_known=0), WELL, False, ""),
        (Sight(pings=1, pings_known=2), SOME_PINGS, False, "1 of 2"),
        (Sight(unserved=("Symphony",)), NO_SERVERS, False, "no real server is up for Symphony"),
    ],
)
def test_levels_and_their_reasons(sight: Sight, level: int, is_cut_off: bool, reason: str) -> None:
    judged = judge(sight)
    assert (judged.level, judged.is_cut_off) == (level, is_cut_off)
    assert reason in "; ".join(judged.reasons)


def steady() -> Steady:
    found = Steady()
    found.update(judge(Sight()), 0, is_certain=False)
    assert found.level == WELL, "the first level counts at once"
    return found


def test_a_hung_worker_and_a_lost_carrier_count_at_once() -> None:
    one, other = steady(), steady()
    one.update(judge(Sight(hung=(0,))), 1, is_certain=False)
    assert one.level == CANNOT_SERVE
    other.update(judge(Sight(without_carrier=("eth0",))), 1, is_certain=True)
    assert (other.level, other.is_cut_off) == (CUT_OFF, True)


def test_lost_pings_must_last_and_so_must_their_return() -> None:
    found, lost = steady(), judge(Sight(pings=0, pings_known=1))
    found.update(lost, 100, is_certain=False)
    found.update(lost, 100 + WORSE_AFTER_MS - 1, is_certain=False)
    assert (found.level, found.is_cut_off) == (WELL, False)
    found.update(lost, 100 + WORSE_AFTER_MS, is_certain=False)
    assert (found.level, found.is_cut_off) == (CUT_OFF, True)
    good = judge(Sight(pings=1, pings_known=1))
    found.update(good, 5000, is_certain=False)
    found.update(lost, 5100, is_certain=False)  # it flutters: the wait begins anew
    found.update(good, 5200, is_certain=False)
    found.update(good, 5200 + BETTER_AFTER_MS - 1, is_certain=False)
    assert found.level == CUT_OFF
    found.update(good, 5200 + BETTER_AFTER_MS, is_certain=False)
    assert (found.level, found.is_cut_off) == (WELL, False)


@pytest.mark.parametrize(
    ("begin", "end", "clock", "inside"),
    [
        ("00:00", "24:00", "23:59", True),
        ("02:00", "04:00", "02:00", True),
        ("02:00", "04:00", "04:00", False),
        ("22:00", "05:00", "23:00", True),
        ("22:00", "05:00", "04:59", True),
        ("22:00", "05:00", "12:00", False),
    ],
)
def test_quiet_window(begin: str, end: str, clock: str, inside: bool) -> None:
    assert is_in_window(begin, end, clock) is inside


def test_failback_waits_for_lasting_health_and_the_window() -> None:
    settings = HaSettings.model_validate(
        {"auto_failback": True, "failback_delay": "10s", "failback_from": "02:00", "failback_until": "04:00"}
    )
    found = Failback()
    assert not found.turn(settings, 0, "03:00", could=True)
    assert not found.turn(settings, 9_999, "03:00", could=True)
    assert not found.turn(settings, 10_000, "05:00", could=True)
    assert found.turn(settings, 10_001, "03:59", could=True)
    assert not found.turn(settings, 10_002, "03:59", could=True), "an order is given once"
    assert not found.turn(settings, 15_000, "03:00", could=False)
    assert not found.turn(settings, 20_002, "03:00", could=True), "the delay begins anew"
    assert not Failback(0).turn(HaSettings(), 10**9, "03:00", could=True), "off by default"


def facts(**changes: object) -> BoxFacts:
    base = {"version": "1", "digest": "d", "servers": [{"id": "r", "real": "R", "service": "S", "health": "up"}]}
    found = BoxFacts.of(base | changes)
    assert found is not None
    return found


def reasons(passive: BoxFacts, **changes: object) -> str:
    settings: dict[str, object] = {
        "active": facts(),
        "peer_heard": True,
        "passive_level": WELL,
        "passive_reasons": (),
        "is_linked": True,
        "is_synced": True,
        "lag_ms": 0,
    }
    found = judge_readiness(passive=passive, **(settings | changes))  # type: ignore[arg-type]
    assert found.is_ready == (not found.reasons)
    return "; ".join(found.reasons)


def test_ready_when_nothing_stands_against_it() -> None:
    assert reasons(facts()) == ""
    assert "not heard" in reasons(facts(), peer_heard=False)
    assert "no replication link" in reasons(facts(), is_linked=False)
    assert "resync" in reasons(facts(), is_synced=False)
    assert "lags by 5000 ms" in reasons(facts(), lag_ms=5000)
    assert "configurations differ" in reasons(facts(digest="other"))
    assert "has lbfast 2" in reasons(facts(version="2"))
    down = [{"id": "r", "real": "R", "service": "S", "health": "down"}]
    assert "R of S is reached by the active box only" in reasons(facts(servers=down))
    assert "no such interface" in reasons(facts(problems=["no such interface"]))
