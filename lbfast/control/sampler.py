"""Takes a sample of every virtual service, real server and the host each ten seconds, and answers for the past."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lbfast.control.engine import Engine
from lbfast.control.hostfigures import HostFigures
from lbfast.control.protocol import ControlError
from lbfast.control.series_file import NAN, SeriesFile
from lbfast.model.series import LEVELS, METRICS, Levels, level_for, reach_of
from lbfast.model.state import EventKind, Health

if TYPE_CHECKING:
    from lbfast.control.catalog import RealInfo, ServiceInfo

HOST: Final = "host"
HOST_METRICS: Final = ("connections", "opened", "bytes_in", "bytes_out", "cpu", "failures", "memory")
STEP_S: Final = LEVELS[0].step
PER_PAUSE: Final = 100  # services sampled before others come first

Counts = tuple[int, int, int, int]
Row = list[float]


class Sampler:
    """``SeriesFile`` is used by one thread at a time, under the lock."""

    def __init__(self, engine: Engine, state_dir: Path, levels: Levels = LEVELS) -> None:
        self._engine = engine
        self._levels = levels  # that are wanted
        self._lock = asyncio.Lock()
        self._last: dict[str, Counts] = {}
        self._connects: dict[int, list[int]] = {}  # real slot -> connects seen, their milliseconds
        self._host = HostFigures()
        self._at_ms = 0
        self._told = ""
        try:
            self._file: SeriesFile | None = SeriesFile(state_dir, levels)
        except OSError as error:
            self._file = None
            engine.announce(f"no graphs: {state_dir} cannot be used ({error.strerror})", "process")

    def replace(self, levels: Levels) -> None:
        """A commit stands: from the next sample on the graphs reach back so far."""
        self._levels = levels

    def note_connect(self, event: Mapping[str, Any]) -> None:
        """A decoded event of a worker; called for many, so it does little."""
        if event["kind"] == EventKind.OPEN:
            seen = self._connects.setdefault(event["real"], [0, 0])
            seen[0] += 1
            seen[1] += event["connect_ms"]

    async def run(self) -> None:
        """Until cancelled.  Samples lie on whole steps of the wall clock, so that days begin where people think."""
        while True:
            now = self._engine.clock.wall().timestamp()
            await asyncio.sleep(STEP_S - now % STEP_S)
            try:
                await self.sample()
                self._told = ""
            except OSError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    self._engine.announce(f"the graphs cannot be written: {error}", "process")

    async def sample(self) -> None:
        if self._file is None:
            return
        file, clock = self._file, self._engine.clock
        before, self._at_ms = self._at_ms, clock.now_ms()
        seconds = (self._at_ms - before) / 1_000 if before else 0.0
        connects, self._connects = self._connects, {}
        rows: dict[str, Row] = {}
        for number, service in enumerate(self._engine.catalog.services):
            if number % PER_PAUSE == PER_PAUSE - 1:
                await asyncio.sleep(0)
            rows |= self._of_service(service, seconds, connects)
        rows[HOST] = self._of_host(rows)
        self._last = {key: counts for key, counts in self._last.items() if key in rows}
        async with self._lock:
            if self._levels != file.levels:
                await self._reshape(file)
            await asyncio.to_thread(file.write, int(clock.wall().timestamp()), rows)

    async def _reshape(self, file: SeriesFile) -> None:
        try:
            await asyncio.to_thread(file.keep, self._levels)
        except OSError as error:
            self._levels = file.levels  # until the next commit or start: not every ten seconds
            self._engine.announce(f"the graphs reach back as far as before: {error}", "process")

    def _of_service(self, service: ServiceInfo, seconds: float, connects: Mapping[int, list[int]]) -> dict[str, Row]:
        rows = {real.key: self._of_real(real, seconds, connects) for real in service.all_reals()}
        total: Row = [_sum([row[place] for row in rows.values()]) for place in range(len(METRICS))]
        seen = [connects[real.slot] for real in service.all_reals() if real.slot in connects]
        total[0] = float(self._engine.shared.table.service(service.slot)["connections"])
        total[4] = sum(each[1] for each in seen) / sum(each[0] for each in seen) if seen else NAN
        states = [rows[real.key][6] for real in service.reals if rows[real.key][6] == rows[real.key][6]]
        total[6] = (1.0 if any(states) else 0.0) if states else NAN
        return rows | {service.key: total}

    def _of_real(self, real: RealInfo, seconds: float, connects: Mapping[int, list[int]]) -> Row:
        state = self._engine.shared.table.real(real.slot)
        counted = self._engine.shared.counters.real(real.slot)
        counts = (counted["opened"], counted["bytes_in"], counted["bytes_out"], counted["connect_failures"])
        before, self._last[real.key] = self._last.get(real.key), counts
        opened, bytes_in, bytes_out, failures = rates(before, counts, seconds)
        seen = connects.get(real.slot)
        health = Health(state["health"])
        return [
            float(state["connections"]),
            opened,
            bytes_in,
            bytes_out,
            seen[1] / seen[0] if seen else NAN,
            failures,
            NAN if health is Health.UNKNOWN else float(health is Health.UP),
        ]

    def _of_host(self, rows: Mapping[str, Row]) -> Row:
        totals = [rows[service.key] for service in self._engine.catalog.services]
        sums = [_sum([row[place] for row in totals]) for place in range(len(METRICS))]
        cpu, memory = self._host.take()
        return [*sums[:4], cpu, sums[5], memory]

    # --- asking ---------------------------------------------------------------

    async def series(self, service: str | None, real: str | None, span: int, end: int | None) -> dict[str, Any]:
        """The points of a virtual service, a real server, or (without both) the host."""
        if self._file is None:
            raise ControlError("refused", "nothing is kept: the state directory could not be used at the start")
        key, names = self._key(service, real)
        now = int(self._engine.clock.wall().timestamp())
        until = now if end is None else end
        async with self._lock:
            level = level_for(max(0, now - until) + span, span, self._file.levels)
            reach = reach_of(self._file.levels)
            points = await asyncio.to_thread(self._file.read, key, until - span, until, level)
        up = [values[6] for _, values in points if values[6] is not None]
        return {
            "service": service,
            "real": real,
            "step": level.step,
            "start": until - span,
            "end": until,
            "reach": reach,
            "metrics": list(names),
            "availability": round(100 * sum(up) / len(up), 4) if up and key != HOST else None,
            "points": [[at, *values] for at, values in points],
        }

    async def availability(self, span: int) -> dict[str, Any]:
        """Of every real server: how much of the time that is known its health checks said up, in percent."""
        found = []
        for vs, rs in self._engine.catalog.pairs():
            report = await self.series(vs.label, rs.label, span, None)
            found.append({"service": vs.label, "real": rs.label, "availability": report["availability"]})
        return {"range": span, "real_servers": found}

    def _key(self, service: str | None, real: str | None) -> tuple[str, tuple[str, ...]]:
        if service is None:
            if real is not None:
                raise ControlError("bad_argument", "real needs the service that it belongs to")
            return HOST, HOST_METRICS
        vs = self._engine.catalog.service(service)
        return (vs.key if real is None else vs.real(real).key), METRICS

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def rates(before: Counts | None, now: Counts, seconds: float) -> Row:
    """Per second; a counter that is smaller than before has begun anew, and counted from nothing."""
    if before is None or seconds <= 0:
        return [NAN] * len(now)
    return [(new - old if new >= old else new) / seconds for old, new in zip(before, now, strict=True)]


def _sum(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) if known else NAN
