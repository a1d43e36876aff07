"""Check the arguments of a verb against what it takes; every refusal names argument, found and expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lbfast.control.protocol import ControlError, json_type

_WORDS = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}


@dataclass(frozen=True)
class Arg:
    """One argument: for text ``least`` and ``most`` bound its length, for a number its value."""

    name: str
    kind: type[str] | type[int] | type[bool] | type[list[Any]]
    required: bool = True
    least: int | None = None
    most: int | None = None

    def optional(self) -> Arg:
        return replace(self, required=False)


Entry = tuple[str, Callable[..., Any], tuple[Arg, ...], bool]
"""A verb in a table: name, function, arguments, and whether it is an act."""


def check_args(expected: Sequence[Arg], args: dict[str, Any]) -> dict[str, Any]:
    """The arguments, null left out; ControlError ``bad_argument``."""
    names = {arg.name for arg in expected}
    for name in args:
        if name not in names:
            takes = f"it takes {', '.join(arg.name for arg in expected)}" if expected else "it takes none"
            raise ControlError("bad_argument", f"unknown argument {name[:80]!r}: {takes}")
    checked = {}
    for arg in expected:
        value = args.get(arg.name)
        if value is not None:
            checked[arg.name] = _check(arg, value)
        elif arg.required:
            raise ControlError("bad_argument", f"{arg.name} is missing: expected {_WORDS[arg.kind]}")
    return checked


def _check(arg: Arg, value: Any) -> Any:
    found: object = type(value)
    if found is not arg.kind:  # not isinstance: true is no number
        shown = f"{json_type(value)} ({value!r})" if isinstance(value, (bool, int, float)) else json_type(value)
        raise ControlError("bad_argument", f"{arg.name}: expected {_WORDS[arg.kind]}, found {shown[:80]}")
    if isinstance(value, str):
        _check_text(arg, value)
    elif arg.kind is int:
        least, most = arg.least or 0, arg.most
        if value < least or (most is not None and value > most):
            raise ControlError("bad_argument", f"{arg.name}: expected {least} to {most}, found {str(value)[:40]}")
    return value


def _check_text(arg: Arg, value: str) -> None:
    least = 1 if arg.least is None else arg.least
    most = arg.most or 500
    if not least <= len(value) <= most:
        raise ControlError("bad_argument", f"{arg.name}: expected {least} to {most} characters, found {len(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ControlError("bad_argument", f"{arg.name}: holds half of a surrogate pair, which is no text") from None
