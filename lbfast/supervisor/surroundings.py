"""What the supervisor asks of its surroundings: is it on a terminal, can a file be opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def open_to_read(path: Path) -> list[int]:
    """Its descriptor; none when it cannot be opened, and control says why."""
    try:
        return [os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)]
    except OSError:
        return []


def is_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except ValueError:
        return False  # closed
