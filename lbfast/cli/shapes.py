"""A shape and a colour beside the word of each state, for eyes that read neither colour nor letters quickly."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from lbfast.cli.clean import clean

# state: (shape, ASCII shape, colour)
_STATES = {
    "up": ("●", "+", "green"),
    "drain": ("◐", "~", "yellow"),
    "drained": ("◐", "~", "yellow"),
    "degraded": ("◑", "!", "yellow"),
    "checking": ("○", "?", "cyan"),
    "down": ("✖", "x", "bold red"),
    "halt": ("■", "#", "magenta"),
}


@dataclass(frozen=True)
class Shapes:
    """Shapes for an output that can, or cannot, carry Unicode."""

    unicode: bool

    def text(self, state: object) -> Text:
        """Shape and word, coloured; a state that is not known is shown as its word."""
        word = clean(state)
        shape, plain, colour = _STATES.get(word, (" ", " ", ""))
        return Text(f"{shape if self.unicode else plain} {word}", style=colour)
