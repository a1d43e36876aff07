"""Durations, port and status sets, addresses, labels: what is taken, what is refused, and the way back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lbfast.model.addresses import HostAddress, ListenAddress, Network
from lbfast.model.duration_types import Duration, KeepaliveDuration, PositiveDuration
from lbfast.model.durations import LONGEST_MS, parse_duration, render_duration
from lbfast.model.ranges import Ports, Statuses, numbers_of, parse_ranges, render_ranges
from lbfast.model.state import AtLimit
from lbfast.model.words import (
    FilePath,
    HostName,
    HttpPath,
    Identity,
    InterfaceName,
    Label,
    RealLabel,
    RegularExpression,
    words,
)


def taken(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


def expected(kind: Any, value: object) -> str:
    """What the refusal says would be right."""
    with pytest.raises(ValidationError) as caught:
        taken(kind, value)
    return str(caught.value.errors()[0]["ctx"]["expected"])


@given(st.integers(0, LONGEST_MS))
def test_every_duration_comes_back_from_its_text(ms: int) -> None:
    assert parse_duration(render_duration(ms)) == ms


@given(st.integers(0, 24), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_rendered_durations_are_no_longer_than_what_was_written(number: int, unit: str) -> None:
    ms = parse_duration(f"{number}{unit}")
    assert taken(Duration, f"{number}{unit}") == ms
    assert len(render_duration(ms)) <= max(2, len(f"{number}{unit}"))


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), ("4s", 4_000), ("30m", 1_800_000), ("12h", 43_200_000), ("1d", 86_400_000), ("0s", 0)],
)
def test_durations_of_the_documentation(text: str, ms: int) -> None:
    assert taken(Duration, text) == ms


@pytest.mark.parametrize(
    "value", ["", "4", "s", "4 s", "-4s", "1.5s", "4S", "1h30m", "٤s", "4s\n", True, 4.0, None, []]
)
def test_what_is_not_a_duration(value: object) -> None:
    assert '"30m"' in expected(Duration, value)


def test_a_plain_number_is_told_how_to_become_a_duration() -> None:
    assert 'with its unit, in quotes: "30s"?' in expected(Duration, 30)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (PositiveDuration, "0s", "from 1ms to 24d"),
        (Duration, "25d", "from 0s to 24d"),
        (Duration, "9999999999d", "from 0s to 24d"),
        (KeepaliveDuration, "1500ms", "in whole seconds"),
        (KeepaliveDuration, "10h", "from 1s to 32767s"),
    ],
)
def test_duration_bounds(kind: Any, value: str, reason: str) -> None:
    assert reason in expected(kind, value)


@given(st.sets(st.integers(1, 65_535), min_size=1, max_size=40))
def test_ports_come_back_from_their_text(ports: set[int]) -> None:
    ranges = taken(Ports, ",".join(map(str, sorted(ports, reverse=True))))
    assert list(numbers_of(ranges)) == sorted(ports)
    assert parse_ranges(render_ranges(ranges), 1, 65_535) == ranges


@given(st.lists(st.integers(1, 65_535), min_size=2, max_size=20, unique=True).filter(lambda it: len(it) % 2 == 0))
def test_disjoint_port_ranges_come_back_in_order(cuts: list[int]) -> None:
    cuts.sort()
    pairs = list(zip(cuts[::2], cuts[1::2], strict=True))
    ranges = taken(Ports, " , ".join(f"{low} - {high}" for low, high in reversed(pairs)))
    assert [tuple(it) for it in ranges] == pairs
    assert taken(Ports, render_ranges(ranges)) == ranges


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("44x", "numbers and ranges"),
        ("", "numbers and ranges"),
        ("80,", "numbers and ranges"),
        ("80-90-100", "numbers and ranges"),
        ("0", "from 1 to 65535"),
        ("65536", "from 1 to 65535"),
        ("8010-8000", 'from low to high: "8000-8010"'),
        ("80,443,80", "80 is listed twice"),
        ("8000-8010,8005-8020", "8005 is listed twice"),
        (443, 'in quotes: "443"'),
        (["443"], '"80,443"'),
        (True, '"80,443"'),
    ],
)
def test_what_are_not_ports(value: object, reason: str) -> None:
    assert reason in expected(Ports, value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("200-399", "200-399"),
        ([302, 200], "200,302"),
        ("200,301-302", "200,301-302"),
        ([200, "300-399"], "200,300-399"),
    ],
)
def test_statuses(value: object, text: str) -> None:
    assert render_ranges(taken(Statuses, value)) == text


@pytest.mark.parametrize("value", ["99", "600", [], [2.0], [True], 200, "2xx", [[200]]])
def test_what_are_not_statuses(value: object) -> None:
    assert "[200, 302]" in expected(Statuses, value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("192.168.85.150", "192.168.85.150"), ("2001:DB8:0::1", "2001:db8::1"), ("0.0.0.0", "0.0.0.0"), ("::", "::")],
)
def test_addresses_are_kept_in_their_canonical_form(value: str, text: str) -> None:
    assert taken(ListenAddress, value) == text


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (ListenAddress, "192.168.85", "IPv4 or IPv6"),
        (ListenAddress, "symphony.example", "IPv4 or IPv6"),
        (ListenAddress, "10.0.0.1/24", "IPv4 or IPv6"),
        (ListenAddress, 3232257430, "IPv4 or IPv6"),
        (ListenAddress, "224.0.0.1", "unicast"),
        (ListenAddress, "255.255.255.255", "unicast"),
        (ListenAddress, "fe80::1%eth0", "link-local"),
        (ListenAddress, "fe80::1", "link-local"),
        (HostAddress, "febf::1", "link-local"),
        (HostAddress, "2001:db8::1%eth0", "without a zone"),
        (ListenAddress, "::ffff:10.0.0.1", 'itself: "10.0.0.1"'),
        (HostAddress, "0.0.0.0", "one machine"),
        (HostAddress, "::", "one machine"),
        (Network, "10.0.0.5/8", 'itself: "10.0.0.0/8"'),
        (Network, "10.0.0.0/33", "10.0.0.0/8"),
        (Network, "", "10.0.0.0/8"),
        (Network, 10, "10.0.0.0/8"),
    ],
)
def test_what_is_not_an_address(kind: Any, value: object, reason: str) -> None:
    assert reason in expected(kind, value)


def test_a_single_address_is_a_network_of_one() -> None:
    assert taken(Network, "10.0.0.5") == "10.0.0.5/32"
    assert taken(Network, "2001:db8::5") == "2001:db8::5/128"


@pytest.mark.parametrize(
    "value",
    ["Symphony", "<script>alert(1)</script>", 'a "quoted" name', "مستشفى\u200f", "a" * 200, "fallback", "a,b;c=d#e"],
)
def test_labels_may_hold_whatever_is_one_line_of_text(value: str) -> None:
    assert taken(Label, value) == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "this one has 0"),
        ("a" * 201, "this one has 201"),
        ("a\nb", "without line breaks"),
        ("a\x1b[2Jb", "without line breaks or control"),
        ("a\u2028b", "without line breaks"),
        (" Symphony", "without spaces at its ends"),
        ("Symphony\n", "without spaces at its ends"),
        (7, "1 to 200 characters"),
    ],
)
def test_what_is_not_a_label(value: object, reason: str) -> None:
    assert reason in expected(Label, value)


def test_labels_that_look_the_same_are_the_same() -> None:
    assert taken(Label, "Ambulanse\u0301") == taken(Label, "Ambulans\u00e9")


def test_the_fallback_servers_label_is_reserved() -> None:
    assert "always means the fallback server" in expected(RealLabel, "fallback")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Identity, "00000000-0000-0000-0000-000000000000"),
        (Identity, "not-a-uuid"),
        (Identity, "{0b5e4f0a-6a3c-4c0e-9d55-0d2f6a1f7c11}"),
        (Identity, 5),
        (InterfaceName, "eth 0"),
        (InterfaceName, "a-name-too-long-0"),
        (HostName, "a b"),
        (HostName, "a\r\nX-Evil: 1"),
        (HttpPath, "health"),
        (HttpPath, "/a b"),
        (HttpPath, "/a\r\nX-Evil: 1"),
        (FilePath, "relative"),
        (FilePath, "/a\nb"),
        (RegularExpression, "("),
        (RegularExpression, ""),
    ],
)
def test_words_that_are_refused(kind: Any, value: object) -> None:
    assert len(expected(kind, value)) > 10


def test_an_identity_may_be_written_in_capitals() -> None:
    text = "0B5E4F0A-6A3C-4C0E-9D55-0D2F6A1F7C11"
    assert taken(Identity, text) == UUID(text)


def test_enumerations_are_read_by_their_words_only() -> None:
    from typing import Annotated

    kind = Annotated[AtLimit, words(AtLimit)]
    assert taken(kind, "reset") is AtLimit.RESET
    assert TypeAdapter(kind).dump_python(AtLimit.RESET, mode="json") == "reset"
    for wrong in ("RESET", "drop", 1, True, None):
        assert expected(kind, wrong) == '"queue", "reset" or "fallback"'
