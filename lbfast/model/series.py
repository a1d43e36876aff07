"""What is kept of the past: values at several resolutions, each reaching back for a time of its own.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

METRICS: Final = ("connections", "opened", "bytes_in", "bytes_out", "connect_ms", "failures", "up")
WIDTH: Final = len(METRICS)
HEAD: Final = 8  # bytes of a row before its values: the slot number
STEP_COLUMNS: Final = 64
MOST_POINTS: Final = 2_000  # of one answer
DAY: Final = 86_400


@dataclass(frozen=True)
class Level:
    """``rows`` rows of ``step`` seconds."""

    step: int
    rows: int

    @property
    def span(self) -> int:
        return self.step * self.rows

    @property
    def file(self) -> str:
        return f"{self.step}s.ring"


Levels = tuple[Level, ...]
"""From the finest to the coarsest; a step is a whole multiple of the one before it."""

LEVELS: Final[Levels] = (
    Level(10, 390),  # 65 minutes
    Level(60, 390),  # 6.5 hours
    Level(300, 300),  # 25 hours
    Level(1_800, 360),  # a week and a half day
    Level(7_200, 384),  # 32 days
    Level(DAY, 372),  # a year and a week
)


def room_for(columns: int) -> int:
    """How many columns a file has that must have so many."""
    return columns // STEP_COLUMNS * STEP_COLUMNS + STEP_COLUMNS


def series_of(reals: Iterable[int]) -> int:
    """How many series there are for virtual services with so many real servers each: they, and the host."""
    return 1 + sum(1 + count for count in reals)


def most_bytes(series: int, levels: Sequence[Level] = LEVELS) -> int:
    """What so many series take on disk at most, whatever time passes."""
    return sum(level.rows for level in levels) * (HEAD + room_for(series * 3 // 2) * WIDTH * 4)


def reach_of(levels: Sequence[Level]) -> int:
    """Seconds that the past goes back."""
    return max(level.span for level in levels)


def level_for(back: int, span: int, levels: Sequence[Level] = LEVELS) -> Level:
    """The finest level that knows what was ``back`` seconds ago and has not too many points in ``span``."""
    fit = [level for level in levels if span <= level.step * MOST_POINTS]
    reaching = [level for level in fit if level.span >= back]
    return reaching[0] if reaching else max(fit or levels, key=lambda level: level.span)
