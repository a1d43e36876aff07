"""Make a reason text of what a foreign server said: printable, one line, bounded."""

from __future__ import annotations

ELLIPSIS = "…"


def clean(text: str) -> str:
    """One line without control, bidirectional or other unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def fit(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8, cut between characters and marked where cut."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode("utf-8")
    keep = raw[: max(0, limit - len(ELLIPSIS.encode()))]
    return keep.decode("utf-8", "ignore") + ELLIPSIS


def quote(raw: bytes, limit: int = 40) -> str:
    """The first bytes of a foreign answer, readable."""
    shown = raw[:limit].decode("ascii", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
    return f'"{text}"' + (ELLIPSIS if len(raw) > limit else "")
