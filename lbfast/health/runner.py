"""Probe every real server on its own timetable and feed the verdicts."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lbfast.health.certificate_watch import CertificateWatch
from lbfast.health.clock import now_ms
from lbfast.health.outcome import ProbeResult
from lbfast.health.passive import Counter, new_failures
from lbfast.health.probes import Prober
from lbfast.health.report import HealthTable, Message, Reporter
from lbfast.health.results import ProbeResults
from lbfast.health.rise_fall import Result, Rules
from lbfast.health.service_health import ServiceHealth
from lbfast.health.spec import CheckedReal, ProbeType
from lbfast.model.state import Health

MAX_AT_ONCE = 1_000  # probes in flight; each holds a descriptor or a process
MAX_SCRIPTS = 16  # scripts in flight; each holds a process
EXTRA_GAP_MS = 100  # between two probes of one server that failed connects asked for
LOOK_GAP_S = 0.005  # between two looks at the counters of failed connects
FIRST_SPREAD_MS = 2  # per server, between first probes


@dataclass(slots=True)
class _Watch:
    """One real server's timetable."""

    check: CheckedReal
    failures: Counter
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    again: bool = False  # a connect failed while the probe was under way
    extra_ms: int = -EXTRA_GAP_MS  # when the last extra probe started, or is due
    has_warned: bool = False  # that probes cannot be made
    has_noted: bool = False  # that connects of clients fail, since the last probe
    started_ms: int = 0


@dataclass(slots=True)
class _Service:
    health: ServiceHealth
    certificates: CertificateWatch
    expiry: asyncio.TimerHandle | None = None
    deadline_ms: int | None = None


@dataclass(slots=True)
class Runner:
    """``start`` inside a running event loop, ``stop`` to end.  ``tell`` gets the messages for the supervisor."""

    checks: Sequence[CheckedReal]
    table: HealthTable
    results: ProbeResults
    wake_fd: int
    tell: Callable[[Message], None]
    prober: Prober = field(default_factory=Prober)
    chance: random.Random = field(default_factory=random.Random)
    _watches: dict[int, _Watch] = field(default_factory=dict)
    _services: dict[int, _Service] = field(default_factory=dict)
    _pending: set[int] = field(default_factory=set)  # without a first verdict
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))
    _script_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SCRIPTS))
    _look: asyncio.TimerHandle | None = None
    _report: Reporter = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._report = Reporter(self.checks, self.table, self.tell)
        for check in self.checks:
            self._add(check)
        self._pending = {slot for slot in self._watches if not self._health(slot).has_verdict(slot)}
        self._tell_verdicts()
        for index, check in enumerate(self.checks):
            if check.spec.type is not ProbeType.NONE:
                self._schedule(self._watches[check.slot], self._first_delay_ms(check, index))
        self._loop.add_reader(self.wake_fd, self._on_wake)

    async def stop(self) -> None:
        self._loop.remove_reader(self.wake_fd)
        timers = [self._look, *(watch.timer for watch in self._watches.values())]
        for timer in [*timers, *(service.expiry for service in self._services.values())]:
            if timer is not None:
                timer.cancel()
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _add(self, check: CheckedReal) -> None:
        spec, slot = check.spec, check.slot
        state = self.table.real(slot)
        self.results.claim(slot, state["id"])
        service = self._services.get(check.service)
        if service is None:
            health = ServiceHealth(check.service_label, spec.window_ms, spec.all_down_grace_ms)
            service = self._services[check.service] = _Service(health, CertificateWatch(check.service_label))
        service.health.add(slot, check.label, Rules(spec.rise, spec.fall, spec.flap), not check.is_fallback)
        self._watches[slot] = _Watch(check, self.table.failures(slot))
        is_probed, standing = spec.type is not ProbeType.NONE, Health(state["health"])
        # Without probes a server that was down comes up at once; one that is up is no news.
        if standing is Health.UP or (is_probed and standing is Health.DOWN):
            service.health.adopt(slot, standing, state["health_since_ms"], state["reason"])
        if not is_probed:
            self._report.apply(check.service, service.health.report(slot, Result.SUCCESS, "not checked", now_ms()))

    def _health(self, slot: int) -> ServiceHealth:
        return self._services[self._watches[slot].check.service].health

    def _tell_verdicts(self) -> None:
        if not self._pending:
            self.tell({"event": "verdicts"})

    # Timetable

    def _first_delay_ms(self, check: CheckedReal, index: int) -> float:
        """Servers without a verdict come soon, the others keep to the spread of their interval."""
        if check.slot in self._pending:
            return min(index * FIRST_SPREAD_MS, check.spec.interval_ms)
        return self.chance.uniform(0, check.spec.interval_ms)

    def _schedule(self, watch: _Watch, delay_ms: float) -> None:
        if watch.timer is not None:
            watch.timer.cancel()
        watch.timer = self._loop.call_later(max(0.0, delay_ms) / 1000, self._launch, watch)

    def _launch(self, watch: _Watch) -> None:
        watch.timer = None
        watch.again = False
        watch.started_ms = now_ms()
        watch.task = self._loop.create_task(self._probe(watch))

    def _next_delay_ms(self, watch: _Watch, is_first: bool) -> float:
        spec = watch.check.spec
        # the second probe comes anywhere in the interval: from then on the servers are spread over it
        factor = self.chance.uniform(0.5, 1) if is_first else 1 + self.chance.uniform(-spec.jitter, spec.jitter)
        return spec.interval_ms * factor - (now_ms() - watch.started_ms)

    async def _probe(self, watch: _Watch) -> None:
        spec = watch.check.spec
        slots = self._script_slots if spec.type is ProbeType.EXTERNAL else self._slots
        try:
            async with slots:
                result = await self.prober.probe(spec)
        except Exception as error:  # a bug here must not end the probing of a server for good
            result = ProbeResult(False, 0, f"internal error, {type(error).__name__}: {error}", is_local=True)
        watch.task = None
        is_first = watch.check.slot in self._pending
        self._take(watch, result)
        if watch.again:
            self._probe_soon(watch)
        else:
            self._schedule(watch, self._next_delay_ms(watch, is_first))

    # Results

    def _take(self, watch: _Watch, result: ProbeResult) -> None:
        check, slot = watch.check, watch.check.slot
        watch.has_noted = False
        self.results.add(slot, time.time(), result.ok, result.duration_ms, result.reason)
        if result.is_local:
            if not watch.has_warned:
                self._report.warn(check.service, slot, f"{check.service_label}: {check.label}: {result.reason}")
            watch.has_warned = True
            return
        watch.has_warned = False
        self._judge(watch, Result.SUCCESS if result.ok else Result.FAILURE, result.reason)
        if result.ok:
            self._forgive(watch)
        if result.certificate is not None:
            self._observe(check, result)
        if slot in self._pending:
            self._pending.discard(slot)
            self._tell_verdicts()

    def _judge(self, watch: _Watch, result: Result, reason: str, count: int = 1) -> None:
        service = self._services[watch.check.service]
        changes = service.health.report(watch.check.slot, result, reason, now_ms(), count)
        self._report.apply(watch.check.service, changes)
        self._arm_expiry(watch.check.service, service)

    def _arm_expiry(self, slot: int, service: _Service) -> None:
        deadline_ms = service.health.deadline_ms()
        if deadline_ms == service.deadline_ms:
            return
        if service.expiry is not None:
            service.expiry.cancel()
        service.deadline_ms, service.expiry = deadline_ms, None
        if deadline_ms is not None:
            delay_ms = max(1, deadline_ms - now_ms() + 1)
            service.expiry = self._loop.call_later(delay_ms / 1000, self._expire, slot, service)

    def _expire(self, slot: int, service: _Service) -> None:
        service.deadline_ms = None  # armed anew if it was too early
        self._report.apply(slot, service.health.expire(now_ms()))
        self._arm_expiry(slot, service)

    def _observe(self, check: CheckedReal, result: ProbeResult) -> None:
        assert result.certificate is not None
        seen = self._services[check.service].certificates.observe(check.label, result.certificate, time.time())
        if seen.note is not None:
            self.results.set_note(check.slot, seen.note)
        for message in seen.loud:
            self._report.warn(check.service, check.slot, message)

    # Failed connects of clients

    def _on_wake(self) -> None:
        try:
            os.read(self.wake_fd, 8)
        except BlockingIOError:
            return
        # a storm of failed connects costs one look each few milliseconds, not one each
        self._loop.remove_reader(self.wake_fd)
        self._look = self._loop.call_later(LOOK_GAP_S, self._loop.add_reader, self.wake_fd, self._on_wake)
        for slot, watch in self._watches.items():
            current = self.table.failures(slot)
            if current != watch.failures:
                self._take_failures(watch, current)

    def _take_failures(self, watch: _Watch, current: Counter) -> None:
        found, slot = new_failures(watch.failures, current), watch.check.slot
        watch.failures = current
        if found is None:
            return
        if watch.check.spec.type is ProbeType.NONE:
            # nobody probes it: the workers may try it again after an interval
            self._loop.call_later(watch.check.spec.interval_ms / 1000, self._clear, watch)
            return
        if self._health(slot).verdict(slot).health is Health.UP and not watch.has_noted:
            watch.has_noted = True  # once between two probes, or a storm would push the probes out of the results
            self.results.add(slot, time.time(), False, 0, found.reason)
        self._judge(watch, Result.PASSIVE, found.reason, found.count)
        self._probe_soon(watch)

    def _probe_soon(self, watch: _Watch) -> None:
        """An extra probe, at once unless the last one has just been."""
        if watch.task is not None:
            watch.again = True
            return
        now = now_ms()
        if watch.extra_ms > now:
            return  # one is on its way; further failures must not put it off
        watch.extra_ms = max(now, watch.extra_ms + EXTRA_GAP_MS)
        self._schedule(watch, watch.extra_ms - now)

    def _forgive(self, watch: _Watch) -> None:
        """A probe passed after the last failed connect: the workers may use the server again."""
        count, last_ms, _ = self.table.failures(watch.check.slot)
        if count and last_ms <= watch.started_ms:
            self._clear(watch)

    def _clear(self, watch: _Watch) -> None:
        self.table.clear_failures(watch.check.slot)
        watch.failures = self.table.failures(watch.check.slot)
