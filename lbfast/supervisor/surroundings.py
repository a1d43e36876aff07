"""What the supervisor asks of its surroundings: is it on a terminal?"""

from __future__ import annotations

import sys


def is_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except ValueError:
        return False  # closed
