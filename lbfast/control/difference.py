"""What differs between two configurations, as lines for people.  Pure."""

from __future__ import annotations

import difflib

_CONTEXT = 2


def differing_lines(before: str, after: str, name: str, other: str) -> list[str]:
    """A unified diff of two texts."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, other, lineterm="", n=_CONTEXT)
    return list(lines)
