"""Time series on disk at a bounded size: a file for each resolution, a row for each moment, a column for each series.

A row is written with one call, whatever number of series there is, and overwritten when its file has come round.  It
begins with the number of its slot, so that an old row is never taken for a new one.  A coarser row is the mean of the
finer rows of its time, read back from disk: nothing is lost by a restart.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbfast.config.files import write_atomically

METRICS: Final = ("connections", "opened", "bytes_in", "bytes_out", "connect_ms", "failures", "up")
WIDTH: Final = len(METRICS)
NAN: Final = math.nan
FOLDER: Final = "series"
_INDEX: Final = "index.json"
_HEAD: Final = 8  # bytes: the slot number
_STEP_COLUMNS: Final = 64
MOST_COLUMNS: Final = 40_000


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


LEVELS: Final = (
    Level(10, 390),  # 65 minutes
    Level(60, 390),  # 6.5 hours
    Level(300, 300),  # 25 hours
    Level(1_800, 360),  # a week and a half day
    Level(7_200, 384),  # 32 days
    Level(86_400, 372),  # a year and a week
)


def most_bytes(series: int) -> int:
    """What so many series take on disk at most, whatever time passes."""
    columns = series * 3 // 2 // _STEP_COLUMNS * _STEP_COLUMNS + _STEP_COLUMNS  # as ``_make_columns`` makes room
    return sum(level.rows for level in LEVELS) * (_HEAD + columns * WIDTH * 4)


def level_for(span: int) -> Level:
    """The finest level that reaches so far back."""
    return next((level for level in LEVELS if level.span >= span), LEVELS[-1])


class SeriesFile:
    """All levels.  Not for two threads at the same time."""

    def __init__(self, state_dir: Path) -> None:
        """OSError when the folder cannot be used."""
        self._folder = state_dir / FOLDER
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._columns, self._capacity, done = self._load_index()
        self._fds = [self._open(level) for level in LEVELS]
        self._done = done  # of each level the last slot that was written

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    @property
    def size(self) -> int:
        """Bytes on disk, when every row has been written."""
        return sum(level.rows * self._row_bytes for level in LEVELS)

    # --- writing --------------------------------------------------------------

    def write(self, now: int, samples: Mapping[str, Sequence[float]]) -> None:
        """A sample of each series, by key; then the coarser rows whose time has passed."""
        self._make_columns(samples)
        row = array("f", [NAN]) * (self._capacity * WIDTH)
        for key, values in samples.items():
            place = self._columns.get(key)
            if place is not None:
                row[place * WIDTH : (place + 1) * WIDTH] = array("f", values)
        slot = now // LEVELS[0].step
        self._write_row(0, slot, row)
        self._done[0] = max(slot, self._done[0])
        for index in range(1, len(LEVELS)):
            self._roll_up(index, now)

    def _roll_up(self, index: int, now: int) -> None:
        level, finer = LEVELS[index], LEVELS[index - 1]
        last = now // level.step - 1
        reach = last - (finer.span // level.step) + 1  # older ones have no finer rows any more
        first = max(self._done[index] + 1, reach)
        for slot in range(first, last + 1):
            start = slot * level.step // finer.step
            rows = [self._read_row(index - 1, start + each) for each in range(level.step // finer.step)]
            kept = [row for row in rows if row is not None]
            if kept:
                self._write_row(index, slot, _mean(kept))
        if last > self._done[index]:
            self._done[index] = last
            self._save_index()

    def _write_row(self, index: int, slot: int, row: array[float]) -> None:
        data = slot.to_bytes(_HEAD, "little") + row.tobytes()
        os.pwrite(self._fds[index], data, (slot % LEVELS[index].rows) * self._row_bytes)

    def _read_row(self, index: int, slot: int) -> array[float] | None:
        offset = (slot % LEVELS[index].rows) * self._row_bytes
        data = os.pread(self._fds[index], self._row_bytes, offset)
        if len(data) < self._row_bytes or int.from_bytes(data[:_HEAD], "little") != slot:
            return None
        return array("f", data[_HEAD:])

    # --- reading --------------------------------------------------------------

    def read(self, key: str, start: int, end: int, level: Level) -> list[tuple[int, list[float | None]]]:
        """``(time, values)`` from start to end; None where nothing is known."""
        place = self._columns.get(key)
        index = LEVELS.index(level)
        points = []
        first = max(start // level.step, end // level.step - level.rows + 1)
        for slot in range(first, end // level.step + 1):
            values = None if place is None else self._read_cell(index, slot, place)
            unknown: list[float | None] = [None] * WIDTH
            points.append((slot * level.step, unknown if values is None else values))
        return points

    def _read_cell(self, index: int, slot: int, place: int) -> list[float | None] | None:
        offset = (slot % LEVELS[index].rows) * self._row_bytes
        if index and slot > self._done[index]:
            return self._so_far(index, slot, place)
        fd = self._fds[index]
        if int.from_bytes(os.pread(fd, _HEAD, offset), "little") != slot:
            return None
        data = os.pread(fd, WIDTH * 4, offset + _HEAD + place * WIDTH * 4)
        if len(data) < WIDTH * 4:
            return None
        return [None if math.isnan(value) else round(value, 4) for value in array("f", data)]

    def _so_far(self, index: int, slot: int, place: int) -> list[float | None] | None:
        """The mean of what there is of a row that is not complete yet."""
        level, finer = LEVELS[index], LEVELS[index - 1]
        start = slot * level.step // finer.step
        found = (self._read_cell(index - 1, start + each, place) for each in range(level.step // finer.step))
        cells = [array("f", [NAN if value is None else value for value in cell]) for cell in found if cell is not None]
        if not cells:
            return None
        return [None if math.isnan(value) else round(value, 4) for value in _mean(cells)]

    # --- columns --------------------------------------------------------------

    @property
    def _row_bytes(self) -> int:
        return _HEAD + self._capacity * WIDTH * 4

    def _make_columns(self, keys: Iterable[str]) -> None:
        """A column for each new key; columns of what is gone are given away only when there is no room to grow."""
        wanted = list(keys)
        new = [key for key in wanted if key not in self._columns]
        if not new:
            return
        free = sorted(set(range(self._capacity)) - set(self._columns.values()))
        if len(new) > len(free):
            self._grow(len(self._columns) + len(new))
            free = sorted(set(range(self._capacity)) - set(self._columns.values()))
        if len(new) > len(free):
            self._forget(set(self._columns) - set(wanted))
            free = sorted(set(range(self._capacity)) - set(self._columns.values()))
        for key, place in zip(new, free, strict=False):
            self._columns[key] = place
        self._save_index()

    def _grow(self, wanted: int) -> None:
        capacity = min(
            MOST_COLUMNS, max(wanted, self._capacity * 3 // 2) // _STEP_COLUMNS * _STEP_COLUMNS + _STEP_COLUMNS
        )
        if capacity <= self._capacity:
            return
        old_bytes, more = self._row_bytes, (capacity - self._capacity) * WIDTH
        filling = array("f", [NAN] * more).tobytes()
        for index, level in enumerate(LEVELS):
            path = self._folder / f".{level.file}.new"
            with path.open("wb") as stream:
                for row in range(level.rows):
                    data = os.pread(self._fds[index], old_bytes, row * old_bytes)
                    if len(data) == old_bytes:
                        stream.seek(row * (old_bytes + len(filling)))
                        stream.write(data + filling)
            # From the first replaced file on the index must say the new width: it is written into each name.
        self._capacity = capacity
        self._save_index(is_growing=True)
        self._finish_growing()

    def _finish_growing(self) -> None:
        for level in LEVELS:
            path = self._folder / f".{level.file}.new"
            if path.exists():
                os.replace(path, self._folder / level.file)
        fds = getattr(self, "_fds", [])
        for fd in fds:
            os.close(fd)
        self._fds = [self._open(level) for level in LEVELS]
        self._save_index()

    def _forget(self, gone: set[str]) -> None:
        blank = array("f", [NAN] * WIDTH).tobytes()
        for key in gone:
            place = self._columns.pop(key)
            for index, level in enumerate(LEVELS):
                for row in range(level.rows):
                    os.pwrite(self._fds[index], blank, row * self._row_bytes + _HEAD + place * WIDTH * 4)

    # --- index ----------------------------------------------------------------

    def _open(self, level: Level) -> int:
        return os.open(self._folder / level.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def _save_index(self, *, is_growing: bool = False) -> None:
        done = getattr(self, "_done", [-1] * len(LEVELS))
        document = {"capacity": self._capacity, "columns": self._columns, "done": done, "growing": is_growing}
        write_atomically(self._folder / _INDEX, json.dumps(document).encode(), mode=0o640)

    def _load_index(self) -> tuple[dict[str, int], int, list[int]]:
        """A damaged index begins everything anew: without it nobody knows whose column is whose."""
        nothing: tuple[dict[str, int], int, list[int]] = ({}, 0, [-1] * len(LEVELS))
        try:
            document: Any = json.loads((self._folder / _INDEX).read_bytes())
            columns = {str(key): int(place) for key, place in document["columns"].items()}
            done = [int(each) for each in document["done"]]
            capacity = int(document["capacity"])
            if (
                len(done) != len(LEVELS)
                or not 0 <= capacity <= MOST_COLUMNS
                or len(set(columns.values())) != len(columns)
            ):
                raise ValueError("out of bounds")
        except FileNotFoundError:
            self._clear()
            return nothing
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._clear()
            return nothing
        for level in LEVELS:
            path = self._folder / f".{level.file}.new"
            if path.exists():
                os.replace(path, self._folder / level.file) if document.get("growing") else path.unlink()
        return columns, capacity, done

    def _clear(self) -> None:
        for path in self._folder.glob("*.ring"):
            path.unlink()
        for path in self._folder.glob(".*.new"):
            path.unlink()


def _mean(rows: Sequence[array[float]]) -> array[float]:
    """Column by column, over the rows that know something."""
    result = array("f")
    for values in zip(*rows, strict=True):
        known = [value for value in values if value == value]  # NaN is not itself
        result.append(sum(known) / len(known) if known else NAN)
    return result
