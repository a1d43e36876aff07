"""What may come next on a command line, and how bash wants it quoted."""

from __future__ import annotations

import importlib
import inspect
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.cli.complete_words import Wanted, quoted, split_line, unquote, wanted
from lbfast.cli.verbs import VERBS, Verb


@pytest.mark.parametrize(
    ("before", "current", "kind", "service"),
    [
        (["drain"], "", "service", ""),
        (["drain", "Symphony"], "", "real", "Symphony"),
        (["drain", "--reason", "why not", "Symphony"], "", "real", "Symphony"),
        (["drain", "--json", "Symphony"], "", "real", "Symphony"),
        (["drain", "--", "--json"], "-", "real", "--json"),
        (["drain", "A", "B", "--reason"], "", "text", "A"),
        (["persistence", "clear", "A", "--real"], "", "real", "A"),
        (["persistence", "pin", "A", "10.1.2.3"], "", "real", "A"),
        (["check"], "", "file", ""),
        (["run", "--config"], "", "file", ""),
        (["completion"], "", "shell", ""),
        (["persistence", "show", "show"], "", "word", ""),
    ],
)
def test_kinds(before, current, kind, service):
    found = wanted(before, current)
    assert found.kind == kind
    if service:
        assert found.service == service


def test_names_and_options():
    assert {"run", "persistence", "--help"} <= set(wanted([], "").words)
    assert wanted(["persistence"], "") == Wanted("word", ("show", "clear", "pin"))
    assert wanted(["nonsense"], "").words == ()
    assert wanted(["drain", "A"], "-").words == (
        *("--plan", "--deadline", "--cut", "--stagger", "--reason", "--json", "--help"),
    )


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb.path))
def test_the_table_says_what_the_functions_take(verb: Verb):
    module, name = verb.target.split(":")
    signature = inspect.signature(getattr(importlib.import_module(module), name), eval_str=True)
    places = [one for one in signature.parameters.values() if one.kind is one.POSITIONAL_ONLY]
    options = [
        f"--{one.name.replace('_', '-')}" for one in signature.parameters.values() if one.kind is one.KEYWORD_ONLY
    ]
    assert len(places) == len(verb.places)
    assert sorted(options) == sorted(name for name, _ in verb.options)


@given(st.lists(st.text(st.characters(blacklist_characters="\0\n\r", blacklist_categories=["Cs"]), min_size=1)))
def test_split_line_reads_what_shlex_wrote(words):
    line = shlex.join(words)
    assert split_line(line + " ") == (words, "")


@pytest.mark.parametrize(
    ("line", "before", "raw"),
    [
        ("lbfast drain Symphony\\ Ser", ["lbfast", "drain"], "Symphony\\ Ser"),
        ('lbfast drain "Symphony Ser', ["lbfast", "drain"], '"Symphony Ser'),
        ("lbfast drain 'a b' ", ["lbfast", "drain", "a b"], ""),
        ('x "a\\"b" "c\\d" y\\', ["x", 'a"b', "c\\d"], "y\\"),
        ("x '' y", ["x", ""], "y"),
    ],
)
def test_split_line_unfinished(line, before, raw):
    assert split_line(line) == (before, raw)


LABELS = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)


@given(LABELS, st.sampled_from(["", "'", '"']))
def test_quoted_means_the_candidate(label, opened):
    text = quoted(label, opened)
    assert unquote(opened + text) == label
    if opened != '"':  # shlex, unlike a shell, keeps the backslash of an escaped $ or ` in double quotes
        assert shlex.split(opened + text + opened) == [label]


def test_bash_gets_only_what_follows_a_colon():
    assert quoted("PACS: north", "PACS:") == "\\ north"
    assert quoted("PACS: north", '"PACS:') == "PACS: north"
