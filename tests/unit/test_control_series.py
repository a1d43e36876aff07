"""Time series: bounded on disk, downsampled, and unshaken by restarts and resets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfast.control.hostfigures import HostFigures
from lbfast.control.sampler import rates
from lbfast.control.series_file import SeriesFile
from lbfast.model.series import LEVELS, WIDTH, Level, Levels, level_for, most_bytes
from lbfast.model.upkeep import GraphSettings

START = 1_800_000_000  # a whole day's beginning is not needed; steps are


def row(value: float) -> list[float]:
    return [value] * WIDTH


def values(file: SeriesFile, key: str, start: int, end: int, level: int = 0) -> list[float | None]:
    return [found[0] for _, found in file.read(key, start, end, file.levels[level])]


@pytest.fixture
def file(tmp_path: Path) -> SeriesFile:
    return SeriesFile(tmp_path)


def test_what_is_written_is_read_and_what_is_not_is_unknown(file: SeriesFile) -> None:
    file.write(START, {"a": row(1)})
    file.write(START + 20, {"a": row(3), "b": row(7)})
    assert values(file, "a", START, START + 20) == [1, None, 3]
    assert values(file, "b", START, START + 20) == [None, None, 7]
    assert values(file, "nobody", START, START + 20) == [None, None, None]


def test_coarser_rows_are_means_and_come_back_after_a_restart(tmp_path: Path) -> None:
    file = SeriesFile(tmp_path)
    for step in range(0, 3_600, 10):
        if step == 1_800:
            file.close()
            file = SeriesFile(tmp_path)
        file.write(START + step, {"a": row(step // 60)})
    assert values(file, "a", START, START + 3_000, 1)[:51] == [float(minute) for minute in range(51)]
    assert values(file, "a", START, START + 2_700, 2) == [2.0 + 5 * number for number in range(10)]
    file.close()


def test_a_row_that_is_not_complete_is_shown_so_far(file: SeriesFile) -> None:
    file.write(START, {"a": row(4)})
    file.write(START + 10, {"a": row(6)})
    assert values(file, "a", START, START, 5) == [5.0]


def test_the_size_is_bounded_and_old_rows_are_never_new(file: SeriesFile, tmp_path: Path) -> None:
    file.write(START, {"a": row(1)})
    later = START + LEVELS[0].span  # the same place in the ring
    assert values(file, "a", later, later) == [None]
    for step in range(3 * LEVELS[0].rows):
        file.write(START + step * 10, {"a": row(2)})
    size = sum(path.stat().st_size for path in (tmp_path / "series").glob("*.ring"))
    assert size <= file.size


def test_many_series_make_it_grow_and_lose_nothing(file: SeriesFile, tmp_path: Path) -> None:
    file.write(START, {"a": row(1)})
    file.write(START + 10, {f"s{number}": row(number) for number in range(300)} | {"a": row(2)})
    assert values(file, "a", START, START + 10) == [1, 2]
    assert values(file, "s299", START + 10, START + 10) == [299]
    file.close()
    assert values(SeriesFile(tmp_path), "s299", START + 10, START + 10) == [299]


def test_growing_that_was_interrupted_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SeriesFile(tmp_path)
    file.write(START, {"a": row(1)})
    real, done = os.replace, []

    def killed(source: object, target: object) -> None:
        if str(target).endswith(".ring"):
            done.append(target)
            if len(done) == 3:
                raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        file.write(START + 10, {f"s{number}": row(number) for number in range(100)})
    monkeypatch.undo()
    again = SeriesFile(tmp_path)
    assert values(again, "a", START, START) == [1]
    again.write(START + 10, {"a": row(5), "s1": row(6)})
    assert values(again, "a", START, START + 10) == [1, 5]
    assert values(again, "s1", START + 10, START + 10) == [6]


def test_a_damaged_index_begins_anew(tmp_path: Path) -> None:
    file = SeriesFile(tmp_path)
    file.write(START, {"a": row(1)})
    file.close()
    (tmp_path / "series" / "index.json").write_text('{"capacity": "x"}')
    again = SeriesFile(tmp_path)
    assert values(again, "a", START, START) == [None]
    again.write(START, {"b": row(2)})
    assert values(again, "b", START, START) == [2]


def test_a_range_has_the_finest_level_that_reaches() -> None:
    spans = (3_600, 6 * 3_600, 86_400, 7 * 86_400, 31 * 86_400, 365 * 86_400, 5 * 365 * 86_400)
    assert [level_for(span, span).step for span in spans] == [10, 60, 300, 1_800, 7_200, 86_400, 86_400]


def test_what_lies_back_has_the_finest_level_that_still_knows_it() -> None:
    long = GraphSettings(keep_10s="1d", keep_1m="7d").levels
    assert level_for(20 * 3_600, 3_600, long).step == 10
    assert level_for(20 * 3_600, 3_600).step == 300
    assert level_for(86_400, 86_400, long).step == 60, "8,640 points of ten seconds are too many for one answer"


def other(first: int, *, times: int = 1) -> Levels:
    """The levels with another number of rows."""
    return (Level(10, first), *(Level(level.step, level.rows * times) for level in LEVELS[1:]))


@pytest.mark.parametrize("rows", [60, 389, 391, 1_000])
def test_another_reach_keeps_what_fits_and_goes_on(file: SeriesFile, tmp_path: Path, rows: int) -> None:
    written = 500
    for step in range(written):
        file.write(START + step * 10, {"a": row(step)})
    coarse = values(file, "a", START, START + 60 * 80, 1)
    file.keep(other(rows))
    known = min(rows, 390)
    shown = values(file, "a", START, START + written * 10 - 10)
    assert shown[-known:] == [float(step) for step in range(written - known, written)]
    assert set(shown[:-known]) <= {None}
    assert values(file, "a", START, START + 60 * 80, 1) == coarse
    file.write(START + written * 10, {"a": row(-1)})
    assert values(file, "a", START + written * 10 - 10, START + written * 10) == [written - 1, -1]
    file.close()
    again = SeriesFile(tmp_path)
    assert again.levels == other(rows)
    assert values(again, "a", START + written * 10, START + written * 10) == [-1]
    assert (tmp_path / "series" / "10s.ring").stat().st_size <= rows * file._row_bytes
    again.close()


def test_a_longer_reach_is_filled_from_then_on(file: SeriesFile) -> None:
    file.keep(other(800))
    for step in range(800):
        file.write(START + step * 10, {"a": row(step)})
    assert values(file, "a", START, START + 7_990) == [float(step) for step in range(800)]


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_another_reach_that_was_interrupted_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Killed at each replacing of a file, the index among them."""
    file = SeriesFile(tmp_path)
    for step in range(30):
        file.write(START + step * 10, {"a": row(step)})
    real, done = os.replace, []

    def killed(source: object, target: object) -> None:
        done.append(target)
        if len(done) == stop_at:
            raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        file.keep(other(70, times=2))
    monkeypatch.undo()
    again = SeriesFile(tmp_path)
    assert again.levels in (LEVELS, other(70, times=2))
    assert values(again, "a", START, START + 290) == [float(step) for step in range(30)]
    assert not list((tmp_path / "series").glob(".*.new"))
    again.close()


def test_a_full_disk_leaves_the_graphs_as_they_were(file: SeriesFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(START, {"a": row(1)})
    size, where = file.size, Path.open

    def full(path: Path, *args: object, **more: object) -> object:
        if path.name == ".300s.ring.new":
            raise OSError(28, "No space left on device")
        return where(path, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space"):
        file.keep(other(800))
    monkeypatch.undo()
    assert (file.levels, file.size) == (LEVELS, size)
    file.write(START + 10, {"a": row(2)})
    assert values(file, "a", START, START + 10) == [1, 2]


def test_files_of_before_the_reach_was_a_setting_are_read_on(file: SeriesFile, tmp_path: Path) -> None:
    file.write(START, {"a": row(1)})
    file.close()
    index = tmp_path / "series" / "index.json"
    document = json.loads(index.read_text())
    del document["rows"]
    index.write_text(json.dumps(document))
    assert values(SeriesFile(tmp_path, other(70)), "a", START, START) == [1]


def test_the_default_reach_is_what_it_always_was() -> None:
    assert GraphSettings().levels == LEVELS


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 10**12)] * 4), st.tuples(*[st.integers(0, 10**12)] * 4), st.floats(0.1, 100))
def test_a_rate_is_never_negative(before: tuple[int, ...], now: tuple[int, ...], seconds: float) -> None:
    found = rates(before, now, seconds)  # type: ignore[arg-type]
    assert all(rate >= 0 for rate in found)
    assert found[0] == pytest.approx((now[0] - before[0] if now[0] >= before[0] else now[0]) / seconds)


def test_the_first_sample_has_no_rate() -> None:
    assert all(rate != rate for rate in rates(None, (1, 2, 3, 4), 10))


def test_the_host_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 250 kB\n")
    (tmp_path / "stat").write_text("cpu 100 0 100 800 0 0 0 0\n")
    figures = HostFigures(tmp_path)
    cpu, memory = figures.take()
    assert cpu != cpu
    assert memory == 75.0
    (tmp_path / "stat").write_text("cpu 150 0 150 900 0 0 0 0\n")
    assert figures.take()[0] == 50.0
    (tmp_path / "meminfo").unlink()
    assert figures.take()[1] != figures.take()[1]


def test_the_size_on_disk_is_known_before(tmp_path: Path) -> None:
    for series in (1, 64, 65, 2_000):
        folder = tmp_path / str(series)
        folder.mkdir()
        file = SeriesFile(folder)
        file.write(1_000_000, {f"s{number}": [1.0] * WIDTH for number in range(series)})
        assert most_bytes(series) >= file.size >= most_bytes(series) // 2, series
        file.close()
