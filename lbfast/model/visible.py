"""Text from elsewhere made visible, and sizes made readable, the same on a terminal and on a page.  Pure."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional marks, zero-width), surrogate, line and paragraph separators: what could
# move the cursor, reorder a line or hide a character.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def clean(text: object) -> str:
    """One line of visible characters: anything else is written as its escape, so nothing is hidden or obeyed."""
    return "".join(_escape(char) if unicodedata.category(char) in _UNSAFE else char for char in str(text))


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size(count: float) -> str:
    """Bytes in three digits: 512 B, 1.2 kB, 34 MB."""
    value = float(count)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    digits = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:.{digits}f} {unit}"
