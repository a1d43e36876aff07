"""What is wrong in a configuration file: where, what was found, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]

_LONGEST_SHOWN = 80
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.  ``key`` is for people: ``virtual_service[0] "Symphony" . ports``."""

    file: str
    line: int | None
    key: str
    found: str
    expected: str
    path: KeyPath = ()

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f" {self.key}:" if self.key else ""
        return f"{place}:{key} found {self.found}, expected {self.expected}"


class ConfigError(Exception):
    """A configuration that cannot be used; every problem at once, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def printable(text: str) -> str:
    """``text`` with everything escaped that could fool a terminal or a log, and cut to a readable length."""
    shown = printable_whole(text[: _LONGEST_SHOWN + 1])
    return shown if len(text) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."


def printable_whole(text: str) -> str:
    """The same without the cut: the name of a file has to be found again."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    number = ord(character)
    return _ESCAPES.get(character) or (f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}")


def render_value(value: object) -> str:
    """A value as the file has it; tables and arrays by their kind and size only."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value[: _LONGEST_SHOWN + 1].replace("\\", "\\\\").replace('"', '\\"')
        return f'"{printable(escaped)}"'
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (str, int)) for item in value):
            return f"[{printable(', '.join(map(render_value, value[:20])))}]"
        return "an array" if value else "an empty array"
    return printable(_render_number(value))


def _render_number(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an enormous number"
    return str(value)


def render_key(path: KeyPath, data: object) -> str:
    """``virtual_service[0] "Symphony" . real_server[1] "Server 2" . weight``, labels taken from the raw data."""
    parts: list[str] = []
    for step in path:
        data = _child(data, step)
        if isinstance(step, int) and parts:
            label = data.get("label") if isinstance(data, dict) else None
            parts[-1] += f"[{step}]" + (f" {render_value(label)}" if isinstance(label, str) else "")
        else:
            parts.append(printable(str(step)))
    return " . ".join(parts)


def _child(data: object, step: str | int) -> object:
    if isinstance(data, dict):
        return data.get(step)
    if isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
        return data[step]
    return None
