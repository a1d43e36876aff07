"""The forecast of a drain: pure, with the clock as an argument."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbfast.control.forecast import IDLE_MS, BoundClient, OpenConnection, Terms, forecast
from lbfast.model.state import DrainPolicy

NOW = 10_000_000_000
AGES = st.integers(0, 86_400_000)
OPEN = st.builds(
    lambda age, silent: OpenConnection(NOW - age, NOW - min(age, silent)), AGES, st.integers(0, 2 * IDLE_MS)
)
CLIENTS = st.builds(BoundClient, st.integers(0, 3), st.booleans(), AGES.map(lambda age: NOW - age))
FREE = st.builds(BoundClient, st.integers(0, 3), st.just(False), AGES.map(lambda age: NOW - age))
TERMS = st.none() | st.builds(Terms, st.integers(0, 90_000), st.booleans(), st.integers(0, 600))
POLICIES = st.sampled_from(DrainPolicy)
MANY = st.lists(OPEN, max_size=30)


@given(MANY, st.lists(CLIENTS, max_size=30), POLICIES, st.integers(0, 7_200_000), TERMS)
def test_counts_are_what_there_is(open_ones, clients, policy, timeout_ms, terms) -> None:
    found = forecast(open_ones, clients, NOW, policy, timeout_ms, terms)
    assert (found.connections, found.clients) == (len(open_ones), len(clients))
    assert found.clients_connected == sum(it.connections > 0 for it in clients)
    assert 0 <= found.idle <= found.connections
    assert (found.connections_at_deadline is None) == (terms is None)
    assert found.half_in >= 0
    assert found.empty_in is None or found.empty_in >= (found.connections_gone_in or 0)
    assert (found.empty_in is None) == any(it.pinned for it in clients), "only a pin keeps it for ever"


@given(MANY, st.lists(FREE, max_size=30), POLICIES, st.integers(0, 7_200_000), TERMS)
def test_half_before_all_and_a_cut_ends_it(open_ones, clients, policy, timeout_ms, terms) -> None:
    found = forecast(open_ones, clients, NOW, policy, timeout_ms, terms)
    ages = sorted((NOW - it.accepted_ms) / 1000 for it in open_ones)
    gone = sum(age <= found.half_in for age in ages)
    assert not ages or gone * 2 >= len(ages)
    if terms is not None and terms.cut:
        assert found.empty_in is not None
        assert found.empty_in <= terms.length + terms.stagger
    elif ages:
        assert found.connections_gone_in == ages[-1]


@given(MANY, st.lists(FREE, max_size=30), POLICIES, st.integers(0, 7_200_000), st.integers(1, 3_600_000))
def test_what_stands_still_is_nearer_later(open_ones, clients, policy, timeout_ms, later) -> None:
    """With nobody connected time works for the operator: the forecast shrinks as the clock goes on."""
    quiet = [BoundClient(0, False, it.idle_since_ms) for it in clients]
    before = forecast([], quiet, NOW, policy, timeout_ms).empty_in
    after = forecast([], quiet, NOW + later, policy, timeout_ms).empty_in
    assert before is not None and after is not None
    assert abs(after - max(0.0, before - later / 1000)) < 0.001


@given(MANY, st.lists(FREE, max_size=30), st.integers(0, 7_200_000))
def test_a_stricter_policy_is_never_later(open_ones, clients, timeout_ms) -> None:
    expiry, connected, new = (
        forecast(open_ones, clients, NOW, policy, timeout_ms).empty_in
        for policy in (DrainPolicy.UNTIL_EXPIRY, DrainPolicy.WHILE_CONNECTED, DrainPolicy.NEW_CHOICE)
    )
    assert expiry is not None and connected is not None and new is not None
    assert expiry >= connected >= new


def test_the_figures_of_an_example() -> None:
    minute = 60_000
    open_ones = [OpenConnection(NOW - age * minute, NOW - idle * minute) for age, idle in ((1, 0), (10, 1), (60, 16))]
    clients = [BoundClient(2, False, 0), BoundClient(1, False, 0), BoundClient(0, False, NOW - 5 * minute)]
    found = forecast(open_ones, clients, NOW, DrainPolicy.UNTIL_EXPIRY, 30 * minute, Terms(1800.0))
    assert (found.clients, found.clients_connected, found.connections, found.idle) == (3, 2, 3, 1)
    assert found.connections_at_deadline == 1
    assert (found.half_in, found.connections_gone_in) == (600.0, 3600.0)
    assert found.empty_in == 3600.0, "the deadline ends the returning, the last connection ends by itself"
    cut = forecast(open_ones, clients, NOW, DrainPolicy.UNTIL_EXPIRY, 30 * minute, Terms(1800.0, True, 60.0))
    assert cut.empty_in == 1860.0
    free = forecast(open_ones, clients, NOW, DrainPolicy.UNTIL_EXPIRY, 30 * minute)
    assert free.empty_in == 3600.0 + 1800.0
