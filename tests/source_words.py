"""One word per idea: the banned words of docs/vocabulary.md, and the rule that looks for them."""

import ast
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.source_text import STRINGS_AND_COMMENTS, Rule, Source, line_of, without_extern


@dataclass(frozen=True)
class Banned:
    word: str
    in_text: bool
    instead: str
    places: tuple[str, ...]


def read_banned(vocabulary: str) -> tuple[Banned, ...]:
    """The table under "Banned words" of docs/vocabulary.md."""
    _, _, section = vocabulary.partition("## Banned words")
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| ([^|]+) \|([^|]*)\|$", section, re.MULTILINE)
    return tuple(
        Banned(word, "text" in scope, instead.strip(), tuple(re.findall(r"`([^`:]+)", places)))
        for word, scope, instead, places in rows
    )


def parts_of(name: str) -> set[str]:
    """`NodeId` and `node_ids` both hold `node`: the words of a name, in lower case and singular."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")
    return {form for word in words for form in (word, word.removesuffix("s"))}


def _defined(source: Source) -> Iterator[tuple[int, str]]:
    if source.is_cython:
        for found in re.finditer(r"[A-Za-z_]\w*", without_extern(source.code)):
            yield line_of(source.code, found.start()), found[0]
        return
    for part in ast.walk(source.tree):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield part.lineno, part.name
        elif isinstance(part, ast.arg):
            yield part.lineno, part.arg
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.lineno, part.id
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            yield part.lineno, part.attr


def _strings(source: Source) -> Iterator[tuple[int, str]]:
    for found in STRINGS_AND_COMMENTS.finditer(source.text):
        if not found[0].startswith("#"):
            yield line_of(source.text, found.start()), found[0]


def speaks_our_words(banned: tuple[Banned, ...]) -> Rule:
    def rule(source: Source) -> list[str]:
        faults = []
        here = {each.word: each for each in banned if not any(fnmatch.fnmatch(source.path, p) for p in each.places)}
        for line, name in _defined(source):
            faults += [
                f"line {line}: {name}: say {here[word].instead}, not {word}" for word in parts_of(name) & set(here)
            ]
        for line, text in _strings(source):
            words = {form for word in re.findall(r"[a-z]+", text.lower()) for form in (word, word.removesuffix("s"))}
            faults += [
                f"line {line}: text says {word}; say {here[word].instead}"
                for word in words & set(here)
                if here[word].in_text
            ]
        return faults

    return rule
