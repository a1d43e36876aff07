"""Where output goes: JSON and plain lines without rich; tables with it, coloured and fitted only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lbfast.cli.clean import encodable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_PIPE_WIDTH = 4096  # a pipe has no width: nothing is folded or cut there


def print_json(result: Any) -> None:
    """The result as one indented document, in ASCII so that no label can play tricks."""
    print(json.dumps(result, indent=2))


def print_json_line(result: Any) -> None:
    """The result as one line, flushed, for streams."""
    print(json.dumps(result, separators=(",", ":")), flush=True)


def line(text: str) -> None:
    """One plain line, flushed, for streams."""
    print(encodable(text, sys.stdout.encoding), flush=True)


def unicode_shapes() -> bool:
    """Whether the output can carry the shapes of the states."""
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def console() -> Console:
    """A console on stdout: colours on a terminal unless NO_COLOR, never markup, never a fixed 80 columns in a pipe."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else _PIPE_WIDTH,
        color_system=None if plain else "auto",
        force_terminal=False if plain else None,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        safe_box=True,
    )


def show(blocks: Iterable[RenderableType]) -> None:
    """Print blocks without trailing blanks, which a table leaves and a pipe would carry on."""
    screen = console()
    with screen.capture() as captured:
        for block in blocks:
            screen.print(block)
    text = "\n".join(row.rstrip() for row in captured.get().split("\n"))
    sys.stdout.write(encodable(text, sys.stdout.encoding))
    sys.stdout.flush()


def wide() -> bool:
    """Whether a table may have a column of free text: in a pipe, or on a broad terminal."""
    return not sys.stdout.isatty() or console().width >= 110
