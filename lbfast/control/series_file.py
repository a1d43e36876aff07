"""Time series on disk at a bounded size: a file for each resolution, a row for each moment, a column for each series.

A row is written with one call, whatever number of series there is, and overwritten when its file has come round.  It
begins with the number of its slot, so that an old row is never taken for a new one.  A coarser row is the mean of the
finer rows of its time, read back from disk: nothing is lost by a restart.

When there are more series, or more or fewer rows are to be kept, each file is written anew beside the old one with the
rows that are still wanted.  The index says the new shape before the first file is replaced: whoever finds it finishes.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lbfast.config.files import write_atomically
from lbfast.model.series import HEAD, LEVELS, WIDTH, Level, Levels, room_for

NAN: Final = math.nan
FOLDER: Final = "series"
_INDEX: Final = "index.json"
MOST_COLUMNS: Final = 40_000
MOST_ROWS: Final = 100_000


class SeriesFile:
    """All levels.  Not for two threads at the same time."""

    def __init__(self, state_dir: Path, levels: Levels = LEVELS) -> None:
        """OSError when the folder cannot be used.  ``levels`` are for new files; others are as they were kept."""
        self._folder = state_dir / FOLDER
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.levels = levels
        # ``_done`` is of each level the last slot that was written.
        self._columns, self._capacity, self._done = self._load_index()
        self._fds = [self._open(level) for level in self.levels]

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def keep(self, levels: Levels) -> None:
        """Reach back so far from now on: what is beyond goes, everything else stays."""
        if levels != self.levels:
            self._rebuild(self._capacity, levels)

    @property
    def size(self) -> int:
        """Bytes on disk, when every row has been written."""
        return sum(level.rows * self._row_bytes for level in self.levels)

    # --- writing --------------------------------------------------------------

    def write(self, now: int, samples: Mapping[str, Sequence[float]]) -> None:
        """A sample of each series, by key; then the coarser rows whose time has passed."""
        self._make_columns(samples)
        row = array("f", [NAN]) * (self._capacity * WIDTH)
        for key, values in samples.items():
            place = self._columns.get(key)
            if place is not None:
                row[place * WIDTH : (place + 1) * WIDTH] = array("f", values)
        slot = now // self.levels[0].step
        self._write_row(0, slot, row)
        self._done[0] = max(slot, self._done[0])
        for index in range(1, len(self.levels)):
            self._roll_up(index, now)

    def _roll_up(self, index: int, now: int) -> None:
        level, finer = self.levels[index], self.levels[index - 1]
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
        data = slot.to_bytes(HEAD, "little") + row.tobytes()
        os.pwrite(self._fds[index], data, (slot % self.levels[index].rows) * self._row_bytes)

    def _read_row(self, index: int, slot: int) -> array[float] | None:
        offset = (slot % self.levels[index].rows) * self._row_bytes
        data = os.pread(self._fds[index], self._row_bytes, offset)
        if len(data) < self._row_bytes or int.from_bytes(data[:HEAD], "little") != slot:
            return None
        return array("f", data[HEAD:])

    # --- reading --------------------------------------------------------------

    def read(self, key: str, start: int, end: int, level: Level) -> list[tuple[int, list[float | None]]]:
        """``(time, values)`` from start to end; None where nothing is known."""
        place = self._columns.get(key)
        index = self.levels.index(level)
        points = []
        first = max(start // level.step, end // level.step - level.rows + 1)
        for slot in range(first, end // level.step + 1):
            values = None if place is None else self._read_cell(index, slot, place)
            unknown: list[float | None] = [None] * WIDTH
            points.append((slot * level.step, unknown if values is None else values))
        return points

    def _read_cell(self, index: int, slot: int, place: int) -> list[float | None] | None:
        offset = (slot % self.levels[index].rows) * self._row_bytes
        if index and slot > self._done[index]:
            return self._so_far(index, slot, place)
        fd = self._fds[index]
        if int.from_bytes(os.pread(fd, HEAD, offset), "little") != slot:
            return None
        data = os.pread(fd, WIDTH * 4, offset + HEAD + place * WIDTH * 4)
        if len(data) < WIDTH * 4:
            return None
        return [None if math.isnan(value) else round(value, 4) for value in array("f", data)]

    def _so_far(self, index: int, slot: int, place: int) -> list[float | None] | None:
        """The mean of what there is of a row that is not complete yet."""
        level, finer = self.levels[index], self.levels[index - 1]
        start = slot * level.step // finer.step
        found = (self._read_cell(index - 1, start + each, place) for each in range(level.step // finer.step))
        cells = [array("f", [NAN if value is None else value for value in cell]) for cell in found if cell is not None]
        if not cells:
            return None
        return [None if math.isnan(value) else round(value, 4) for value in _mean(cells)]

    # --- columns --------------------------------------------------------------

    @property
    def _row_bytes(self) -> int:
        return HEAD + self._capacity * WIDTH * 4

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
        capacity = min(MOST_COLUMNS, room_for(max(wanted, self._capacity * 3 // 2)))
        if capacity > self._capacity:
            self._rebuild(capacity, self.levels)

    def _rebuild(self, capacity: int, levels: Levels) -> None:
        """Each file anew with so many columns and rows.  OSError (a full disk) leaves everything as it was."""
        before = self._capacity, self.levels
        try:
            for index, level in enumerate(levels):
                self._copy(index, level, capacity)
            # From the first replaced file on the index must say the new shape: it is written into each name.
            self._capacity, self.levels = capacity, levels
            self._save_index(is_unfinished=True)
        except OSError:
            self._capacity, self.levels = before
            for level in levels:
                self._beside(level).unlink(missing_ok=True)
            raise
        self._take_new_files()
        old, self._fds = self._fds, [self._open(level) for level in levels]
        for fd in old:
            os.close(fd)
        self._save_index()

    def _copy(self, index: int, level: Level, capacity: int) -> None:
        """The rows that ``level`` has room for, the newest of them, into a file beside the old one."""
        filling = array("f", [NAN] * ((capacity - self._capacity) * WIDTH)).tobytes()
        heads = (os.pread(self._fds[index], HEAD, row * self._row_bytes) for row in range(self.levels[index].rows))
        slots = [(int.from_bytes(head, "little"), row) for row, head in enumerate(heads) if len(head) == HEAD]
        kept = sorted(slots)[-level.rows :]
        with self._beside(level).open("wb") as stream:
            for slot, row in kept:
                data = os.pread(self._fds[index], self._row_bytes, row * self._row_bytes)
                if slot and slot > kept[-1][0] - level.rows and len(data) == self._row_bytes:
                    stream.seek((slot % level.rows) * (len(data) + len(filling)))
                    stream.write(data + filling)

    def _beside(self, level: Level) -> Path:
        return self._folder / f".{level.file}.new"

    def _take_new_files(self) -> None:
        for level in self.levels:
            if self._beside(level).exists():
                os.replace(self._beside(level), self._folder / level.file)

    def _forget(self, gone: set[str]) -> None:
        blank = array("f", [NAN] * WIDTH).tobytes()
        for key in gone:
            place = self._columns.pop(key)
            for index, level in enumerate(self.levels):
                for row in range(level.rows):
                    os.pwrite(self._fds[index], blank, row * self._row_bytes + HEAD + place * WIDTH * 4)

    # --- index ----------------------------------------------------------------

    def _open(self, level: Level) -> int:
        return os.open(self._folder / level.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def _save_index(self, *, is_unfinished: bool = False) -> None:
        document = {
            "capacity": self._capacity,
            "columns": self._columns,
            "done": self._done,
            "rows": [level.rows for level in self.levels],
            "growing": is_unfinished,
        }
        write_atomically(self._folder / _INDEX, json.dumps(document).encode(), mode=0o640)

    def _load_index(self) -> tuple[dict[str, int], int, list[int]]:
        """A damaged index begins everything anew: without it nobody knows whose column is whose."""
        try:
            document: Any = json.loads((self._folder / _INDEX).read_bytes())
            columns = {str(key): int(place) for key, place in document["columns"].items()}
            done = [int(each) for each in document["done"]]
            capacity = int(document["capacity"])
            rows = [int(each) for each in document.get("rows", [level.rows for level in LEVELS])]
            if (
                not len(done) == len(rows) == len(self.levels)
                or not 0 <= capacity <= MOST_COLUMNS
                or not all(0 < each <= MOST_ROWS for each in rows)
                or len(set(columns.values())) != len(columns)
            ):
                raise ValueError("out of bounds")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._clear()
            return {}, 0, [-1] * len(self.levels)
        self.levels = tuple(Level(level.step, each) for level, each in zip(self.levels, rows, strict=True))
        if document.get("growing"):
            self._take_new_files()
        for level in self.levels:
            self._beside(level).unlink(missing_ok=True)
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
