"""The scanner finds every key that the parser finds, on the line where it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from lbfast.config.errors import KeyPath
from lbfast.config.lines import Lines

TRICKY = '''# comment = "no key"
title = "a # b = [c]" # d = 1
"quoted key" = 'x'
dotted . "a b".c = 1
long = """
fake = 1
[fake]
\\""" still inside
"""
raw = \'\'\'
fake2 = 2\'\'\'
list = [ # comment ]
  "a", [1, 2],
  { x = 1, y = { z = [
    3,
  ] } },
]
[table]
k = 2020-01-01T00:00:00Z
[[array]]
k = 1
  [array.sub]
  k = 2
  [[array.inner]]
  k = 3
  [[array.inner]]
  k = 4
[[array]]
[[array.inner]]
k = 5
"caf\\u00e9" = 0x1f
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("quoted key",), 3),
        (("dotted", "a b", "c"), 4),
        (("dotted",), 4),
        (("long",), 5),
        (("raw",), 10),
        (("list",), 12),
        (("list", 0), 13),
        (("list", 1, 1), 13),
        (("list", 2, "y", "z", 0), 15),
        (("table", "k"), 19),
        (("array", 0, "k"), 21),
        (("array", 0, "sub", "k"), 23),
        (("array", 0, "inner", 1), 26),
        (("array", 0, "inner", 1, "k"), 27),
        (("array", 1), 28),
        (("array", 1, "inner", 0, "k"), 30),
        (("array", 1, "inner", 0, "caf\u00e9"), 31),
        (("array", 1, "absent"), 28),
        (("fake",), None),
        (("fake2",), None),
        ((), None),
    ],
)
def test_lines_of_tricky_text(path: KeyPath, line: int | None) -> None:
    tomllib.loads(TRICKY)
    assert Lines(TRICKY).line(path) == line


def paths_of(data: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key)
            yield from paths_of(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield (*path, index)
            yield from paths_of(value, (*path, index))


keys = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)
scalars = st.one_of(st.integers(-99, 99), st.booleans(), st.text(max_size=12), st.floats(allow_nan=False))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(keys, values, max_size=5))
def test_every_key_of_any_document_is_found_at_a_line_that_names_it(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    lines, rows = Lines(text), text.split("\n")
    assert list(lines.repeated()) == []
    for path in paths_of(tomllib.loads(text)):
        line = lines.line(path)
        assert line is not None, f"{path} in {text!r}"
        assert 1 <= line <= len(rows)
    for number, key in enumerate(data):
        fresh = Lines(text + f"\n[[zz{number}]]\nlast = 1\n")
        assert fresh.line((f"zz{number}", 0, "last")) == text.replace("\r\n", "\n").count("\n") + 3, key


@given(st.text(alphabet="[]{}=\"'#\\., \nab1", max_size=60))
def test_any_text_at_all_is_scanned_to_an_end(text: str) -> None:
    list(Lines(text).repeated())


def test_a_key_of_a_hundred_thousand_parts_costs_nothing_special() -> None:
    assert Lines("a." * 100_000 + "a = 1\n").line(("a", "a")) == 1
