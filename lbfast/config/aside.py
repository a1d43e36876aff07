"""State files that do not read: kept under another name, and told, so that the start goes on and nothing is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MOST = 1_000


def move_aside(path: Path) -> Path:
    """Rename a file to the next free ``NAME.damaged-N``; OSError when it cannot be."""
    for number in range(1, _MOST):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if not aside.exists():
            break
    os.rename(path, aside)
    return aside


def keep_aside(path: Path, read: Callable[[Any], object], lost: str) -> str | None:
    """What to tell when a file of JSON does not read, after moving it aside; None when it reads or is not there.

    ``read`` gets the document and raises on what it cannot use; ``lost`` says what that means.
    """
    try:
        read(json.loads(path.read_bytes()))
        return None
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): {lost}"
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__} {error}"
    try:
        return f"{path} is damaged ({why[:200]}): moved to {move_aside(path).name}; {lost}"
    except OSError as error:
        return f"{path} is damaged ({why[:200]}) and cannot be moved aside ({error.strerror}); {lost}"
