"""Which releases may be a pair."""

from __future__ import annotations

import pytest

from lbfast.ha.skew import PROTOCOL, protocol_of, why_not


@pytest.mark.parametrize("theirs", [PROTOCOL - 1, PROTOCOL, PROTOCOL + 1])
def test_one_release_apart(theirs: int) -> None:
    assert why_not({"protocol": theirs, "version": "x"}) == ""


def test_a_release_without_the_number_is_the_first() -> None:
    assert protocol_of({"version": "0.0.9"}) == 1


@pytest.mark.parametrize(
    ("theirs", "which"), [(PROTOCOL + 2, "update this box first"), (PROTOCOL - 2, "update the peer first")]
)
def test_further_apart_says_who_is_behind(theirs: int, which: str) -> None:
    said = why_not({"protocol": theirs, "version": "7.0"})
    assert which in said
    assert f"lbfast 7.0 (protocol {theirs})" in said
