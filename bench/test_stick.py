"""Stick table beside a dict twin: look up a known client, reserve and give back, at three sizes.

The compiled verbs are called one by one from Python, as the dict is: the figures hold
the price of the call.  ``test_verbs_without_python`` shows the verbs alone: 100,000
random ones (reserve, release, bind, remove) in one call.
"""

from __future__ import annotations

import mmap
import random
from typing import Any

import pytest

from bench.doors import load_cshim
from lbfast._stick import StickTable

SIZES = (1_000, 100_000, 1_000_000)
TIMEOUT = 1_800_000


cshim = load_cshim()


def client(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


class Twin:
    """The same verbs on a dict: what a plain-Python balancer would do, without sharing, bounds or crash safety."""

    def __init__(self) -> None:
        self.entries: dict[str, list[int]] = {}

    def find(self, key: str, now: int) -> list[int] | None:
        entry = self.entries.get(key)
        return entry if entry is not None and (entry[1] or now - entry[2] <= TIMEOUT) else None

    def reserve(self, key: str, real: int, now: int) -> list[int]:
        entry = self.find(key, now)
        if entry is None:
            entry = self.entries[key] = [real, 0, now]
        entry[1] += 1
        return entry

    def release(self, entry: list[int], now: int) -> None:
        entry[1] -= 1
        entry[2] = now


@pytest.fixture(scope="module", params=SIZES, ids="{:,}".format)
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def table(size: int) -> StickTable:
    made = StickTable.create(size)
    for number in range(size):
        cshim.reserve(made, client(number), None, 0, number & 3, 1, cshim.BOUND, TIMEOUT, 0)
    return made


@pytest.fixture(scope="module")
def twin(size: int) -> Twin:
    made = Twin()
    for number in range(size):
        made.release(made.reserve(client(number), number & 3, 0), 0)
    return made


def chosen(size: int) -> list[str]:
    dice = random.Random(1)
    return [client(dice.randrange(size)) for _ in range(1000)]


@pytest.mark.benchmark(group="look up 1000 clients", max_time=0.3, min_rounds=3, warmup=False)
class TestFind:
    def test_compiled(self, benchmark: Any, table: StickTable, size: int) -> None:
        clients = chosen(size)
        found = benchmark(lambda: sum(cshim.find(table, each, TIMEOUT, 1) >= 0 for each in clients))
        assert found > 900  # a few were evicted from crowded buckets

    def test_dict_twin(self, benchmark: Any, twin: Twin, size: int) -> None:
        clients = chosen(size)
        assert benchmark(lambda: sum(twin.find(each, 1) is not None for each in clients)) == 1000


@pytest.mark.benchmark(group="reserve and release 1000 clients", max_time=0.3, min_rounds=3, warmup=False)
class TestReserve:
    def test_compiled(self, benchmark: Any, table: StickTable, size: int) -> None:
        clients = chosen(size)
        refs = mmap.mmap(-1, cshim.REF_SIZE)

        def work() -> None:
            for each in clients:
                cshim.reserve(table, each, refs, 0, 1, 1, cshim.BOUND, TIMEOUT, 1)
                cshim.release(table, refs, 0, 1)

        benchmark(work)
        assert cshim.audit(table)[1] == {}

    def test_dict_twin(self, benchmark: Any, twin: Twin, size: int) -> None:
        clients = chosen(size)

        def work() -> None:
            for each in clients:
                twin.release(twin.reserve(each, 1, 1), 1)

        benchmark(work)
        assert all(entry[1] == 0 for entry in twin.entries.values())


@pytest.mark.benchmark(group="100,000 verbs without Python", max_time=0.3, min_rounds=3, warmup=False)
def test_verbs_without_python(benchmark: Any) -> None:
    table = StickTable.create(40_000)
    refs = mmap.mmap(-1, cshim.REF_SIZE * 1000)
    benchmark(lambda: cshim.hammer(table, refs, 40_000, 5, 100_000))
    assert cshim.audit(table)[0] == []
