"""Sentences made where nobody knows yet in which language they will be read.

``said("%(name)s is removed.", name=name)`` is the English text, and remembers how it was made: a page says it in the
reader's language, while the audit log, the console and the API have it as it is.
"""

from __future__ import annotations

from typing import Any, Protocol


class Translator(Protocol):
    """What a gettext catalogue does."""

    def gettext(self, message: str) -> str: ...

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str: ...


class Said(str):
    """``forms``: the English pattern, or singular and plural; ``number`` chooses between them."""

    __slots__ = ("forms", "number", "values")
    forms: tuple[str, ...]
    number: int
    values: dict[str, Any]

    def __new__(cls, forms: tuple[str, ...], number: int, values: dict[str, Any]) -> Said:
        made = super().__new__(cls, _fill(forms[0 if number == 1 else -1], values))
        made.forms, made.number, made.values = forms, number, values
        return made

    def __str__(self) -> str:
        return self  # also as the text of an exception it stays what it is


def said(text: str, /, **values: Any) -> Said:
    """A sentence; ``text`` is a literal, because it is what translators get to see."""
    return Said((text,), 1, values)


def counted(one: str, many: str, number: int, /, **values: Any) -> Said:
    """A sentence about so many, which is ``%(num)s`` in it."""
    return Said((one, many), number, {"num": f"{number:,}", **values})


def joined(*texts: str, gap: str = " ") -> Said:
    """Several sentences after each other."""
    values = {f"part{place}": text for place, text in enumerate(texts)}
    return Said((gap.join(f"%({name})s" for name in values),), 1, values)


def told(text: str, catalogue: Translator | None) -> str:
    """In the language of a catalogue; what was not made by ``said`` is nobody's to translate."""
    if catalogue is None or not isinstance(text, Said):
        return text
    one, many = text.forms[0], text.forms[-1]
    pattern = catalogue.gettext(one) if one == many else catalogue.ngettext(one, many, text.number)
    values = {name: told(value, catalogue) for name, value in text.values.items()}
    return _fill(pattern, values)


def _fill(pattern: str, values: dict[str, Any]) -> str:
    return pattern % values if values else pattern
