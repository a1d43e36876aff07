"""Durations typed into a form, each judged with a word for its field.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lbfast.model.durations import EXAMPLES, parse_duration, render_duration
from lbfast.web.said import said

LONGEST: Final = {"deadline": 24 * 86_400, "stagger": 86_400, "cut_after": 24 * 86_400}  # seconds, as control has it


class Spans:
    """``faults`` says what is wrong, by field."""

    def __init__(self, typed: Mapping[str, str]) -> None:
        self._seconds: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        for name, most in LONGEST.items():
            text = typed.get(name, "").strip()
            if text:
                self._judge(name, text, most)

    def seconds(self, name: str) -> int | None:
        """None when nothing, or nothing right, was typed."""
        return self._seconds.get(name)

    def _judge(self, name: str, text: str, most: int) -> None:
        try:
            ms = parse_duration(text)
        except ValueError:
            self.faults[name] = said('Found "%(found)s", expected %(examples)s.', found=text[:40], examples=EXAMPLES)
            return
        if ms % 1_000 or ms > most * 1_000:
            self.faults[name] = said(
                'Found "%(found)s", expected whole seconds, at most %(most)s.',
                found=text[:40],
                most=render_duration(most * 1_000),
            )
        else:
            self._seconds[name] = ms // 1_000
