"""What may come next on a command line: the table of verbs walked word by word; pure."""

from __future__ import annotations

from dataclasses import dataclass

from lbfast.cli.verbs import GROUPS, VERBS, Verb


@dataclass(frozen=True)
class Wanted:
    """The kind of word that is being typed, with fixed candidates or the service whose labels are wanted."""

    kind: str  # "word", "service", "real", "file", "client", "text", "shell" or "" when nothing may follow
    words: tuple[str, ...] = ()
    service: str = ""


def wanted(before: list[str], current: str) -> Wanted:
    """What ``current`` may become after the words ``before`` it (the program's name left out)."""
    verb = _verb(before)
    if verb is None:
        return Wanted("word", _next_names(before))
    places: list[str] = []
    options = dict(verb.options)
    value_of: str | None = None
    only_places = False
    for word in before[len(verb.path) :]:
        if value_of is not None:
            value_of = None
        elif word == "--" and not only_places:
            only_places = True
        elif not only_places and options.get(word):
            value_of = word
        elif only_places or word not in options:
            places.append(word)
    service = places[0] if places else ""
    if value_of is not None:
        return Wanted(options[value_of], service=service)
    if current.startswith("-") and not only_places:
        return Wanted("word", (*options, "--help"))
    if len(places) < len(verb.places):
        return Wanted(verb.places[len(places)], service=service)
    return Wanted("word", tuple(options))


def _verb(before: list[str]) -> Verb | None:
    for verb in VERBS:
        if tuple(before[: len(verb.path)]) == verb.path:
            return verb
    return None


def _next_names(before: list[str]) -> tuple[str, ...]:
    if not before:
        return (*sorted({verb.path[0] for verb in VERBS}), "--help", "--version")
    if len(before) == 1 and before[0] in GROUPS:
        return tuple(verb.path[1] for verb in VERBS if verb.path[0] == before[0] and len(verb.path) > 1)
    return ()


def split_line(line: str) -> tuple[list[str], str]:
    """The words of an unfinished command line: the finished ones without their quotes, and the last as typed."""
    words: list[str] = []
    current, raw, quoting, started = "", "", "", False
    index = 0
    while index < len(line):
        char = line[index]
        if not quoting and char in " \t":
            if started:
                words.append(current)
            current, raw, started = "", "", False
        else:
            started = True
            taken, plain, quoting = _step(line, index, quoting)
            raw += taken
            current += plain
            index += len(taken) - 1
        index += 1
    return words, raw


def _step(line: str, index: int, quoting: str) -> tuple[str, str, str]:
    """One character, or an escaped pair: as typed, its meaning, and the quote that is open after it."""
    char = line[index]
    if char == "\\" and quoting != "'":
        pair = line[index : index + 2]
        keeps = quoting == '"' and pair[1:] not in {'"', "\\", "$", "`"}
        return pair, pair if keeps else pair[1:], quoting
    if char == quoting:
        return char, "", ""
    if not quoting and char in "'\"":
        return char, "", char
    return char, char, quoting


def unquote(raw: str) -> str:
    """The meaning of one word as typed, its quotes perhaps still open."""
    text, quoting, index = "", "", 0
    while index < len(raw):
        taken, plain, quoting = _step(raw, index, quoting)
        text += plain
        index += len(taken)
    return text


def quoted(candidate: str, raw: str) -> str:
    """A candidate as bash has to insert it in place of ``raw``: in its open quote, or with backslashes."""
    if raw[:1] == "'":
        return candidate.replace("'", "'\\''")
    if raw[:1] == '"':
        return "".join(f"\\{char}" if char in '"\\$`' else char for char in candidate)
    text = "".join(char if char.isalnum() or char in "-_./,:=@%+" else f"\\{char}" for char in candidate)
    # bash replaces only what follows the last colon or equals sign of an unquoted word
    head = max(raw.rfind(":"), raw.rfind("=")) + 1
    return text[head:] if text.startswith(raw[:head]) else text
