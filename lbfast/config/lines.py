"""On which line each key of a TOML text stands.

The standard parser gives no lines and a parser that does is ten times slower, so
this small scanner runs only once something has to be reported.  It is given text
that the parser accepted (or whose only fault is a key given twice), so it checks
nothing: it skips over values and notes where keys begin.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from lbfast.config.errors import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"{3,5}' r"|'''[\s\S]*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_SIMPLE_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_DEEPEST = 16  # parts of one dotted key that are told apart; the configuration has 2
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


class Lines:
    """Every key of the text with the offset at which it is written."""

    def __init__(self, text: str) -> None:
        # The same change the parser makes, so that offsets count the same lines.
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._counts: Counter[KeyPath] = Counter()  # elements seen of each array of tables
        self._keys: list[tuple[KeyPath, int]] = []
        self._scan()
        self._newlines = [match.start() for match in re.finditer("\n", self._text)]
        self._first: dict[KeyPath, int] = {}
        for path, offset in self._keys:
            for length in range(1, len(path) + 1):
                self._first.setdefault(path[:length], offset)

    def line(self, path: KeyPath) -> int | None:
        """Line of the key, or of the nearest table around it; None when not even that is in the text."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._first:
                return self._line_at(self._first[path[:length]])
        return None

    def repeated(self) -> Iterator[tuple[KeyPath, int, int]]:
        """Keys and tables written twice: (path, line of the second, line of the first)."""
        seen: dict[KeyPath, int] = {}
        for path, offset in self._keys:
            if path in seen:
                yield path, self._line_at(offset), self._line_at(seen[path])
            seen.setdefault(path, offset)

    def _line_at(self, offset: int) -> int:
        return bisect_left(self._newlines, offset) + 1

    def _scan(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return
            start = self._at
            if self._text[start] == "[":
                table = self._header()
                self._keys.append((table, start))
            else:
                self._pair(table)
            if self._at == start:
                return  # not TOML after all: what was found so far has to do

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        names = self._key()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for name in names[:-1]:
            path = self._into((*path, name))
        path = (*path, names[-1]) if names else path
        if is_array:
            self._counts[path] += 1
        return self._into(path)

    def _into(self, path: KeyPath) -> KeyPath:
        """A header that passes through an array of tables means its last element."""
        return (*path, self._counts[path] - 1) if self._counts[path] else path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = (*table, *self._key())
        self._keys.append((path, start))
        self._skip(_SPACE)
        if self._text.startswith("=", self._at):
            self._at += 1
            self._value(path)

    def _key(self) -> KeyPath:
        names: list[str] = []
        while True:
            self._skip(_SPACE)
            if match := _BARE.match(self._text, self._at):
                names.append(match[0])
            elif match := _STRING.match(self._text, self._at):
                names.append(_unquote(match[0]))
            else:
                return tuple(names[:_DEEPEST])
            self._at = match.end()
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return tuple(names[:_DEEPEST])
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip(_SPACE)
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._sequence(path, "]", inline_table=False)
        elif opening == "{":
            self._sequence(path, "}", inline_table=True)
        elif match := _STRING.match(self._text, self._at):
            self._at = match.end()
        else:
            self._skip(_SCALAR)

    def _sequence(self, path: KeyPath, closing: str, *, inline_table: bool) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            start = self._at
            if start >= len(self._text) or self._text[start] == closing:
                self._at = start + 1
                return
            if self._text[start] == ",":
                self._at += 1
                continue
            if inline_table:
                self._pair(path)
            else:
                self._keys.append(((*path, index), start))
                self._value((*path, index))
                index += 1
            if self._at == start:
                return

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at


def _unquote(text: str) -> str:
    if text[0] == "'":
        return text[1:-1]
    return _SIMPLE_ESCAPE.sub(_character, text[1:-1])


def _character(match: re.Match[str]) -> str:
    if match[3] is not None:
        return _ESCAPED.get(match[3], match[3])
    return chr(int(match[1] or match[2], 16))
