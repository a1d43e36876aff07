"""Sets of numbers as people write them: ports "80,443,8000-8010", statuses "200-299" or [200, 302]."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic_core import core_schema

from lbfast.model.values import Parsed, refuse, text_schema

_ITEM = re.compile(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?")
_PATTERN = r"^\s*[0-9]+\s*(-\s*[0-9]+\s*)?(,\s*[0-9]+\s*(-\s*[0-9]+\s*)?)*$"
_PORTS = 'ports as text, such as "443", "80,443" or "8000-8010"'
_STATUSES = 'HTTP statuses such as "200-299", "200,302" or [200, 302]'


class NumberRange(NamedTuple):
    """Every number from first to last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


Ranges = tuple[NumberRange, ...]


def parse_ranges(text: str, least: int, most: int) -> Ranges:
    """The ranges in ascending order; ValueError (saying what would be right) for anything but disjoint ranges."""
    ranges = []
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError("numbers and ranges separated by commas")
        first, last = int(match[1]), int(match[2] or match[1])
        if not least <= first <= most or not least <= last <= most:
            raise ValueError(f"numbers from {least} to {most}")
        if first > last:
            raise ValueError(f'ranges from low to high: "{last}-{first}"')
        ranges.append(NumberRange(first, last))
    ranges.sort()
    for before, after in pairwise(ranges):
        if after.first <= before.last:
            raise ValueError(f"each number once: {after.first} is listed twice")
    return tuple(ranges)


def render_ranges(ranges: Iterable[NumberRange]) -> str:
    """What ``parse_ranges`` reads back."""
    return ",".join(map(str, ranges))


def numbers_of(ranges: Iterable[NumberRange]) -> Iterator[int]:
    """Every number of the set, in order."""
    for first, last in ranges:
        yield from range(first, last + 1)


def _parse_ports(value: Any) -> Ranges:
    if type(value) is int:
        raise refuse(f'{_PORTS} (in quotes: "{value}")')
    if not isinstance(value, str):
        raise refuse(_PORTS)
    try:
        return parse_ranges(value, 1, 65_535)
    except ValueError as error:
        raise refuse(f"{_PORTS}: {error}") from None


def _parse_statuses(value: Any) -> Ranges:
    if isinstance(value, list) and value and all(type(item) in (int, str) for item in value):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        raise refuse(_STATUSES)
    try:
        return parse_ranges(value, 100, 599)
    except ValueError as error:
        raise refuse(f"{_STATUSES}: {error}") from None


_TEXT = text_schema(_PATTERN)
_STATUS_ITEM = core_schema.union_schema([core_schema.int_schema(ge=100, le=599), _TEXT])

Ports = Annotated[Ranges, Parsed(_parse_ports, render_ranges, text_schema(_PATTERN, example="80,443,8000-8010"))]
Statuses = Annotated[
    Ranges,
    Parsed(
        _parse_statuses,
        render_ranges,
        core_schema.union_schema([_TEXT, core_schema.list_schema(_STATUS_ITEM, min_length=1)]),
    ),
]
