"""Admin state: drain, halt, online, weights and pins, kept first, then applied to shared memory.

Also runs the drain deadlines (``drains.py`` has their arithmetic).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lbfast.control.catalog import Catalog, RealInfo, ServiceInfo
from lbfast.control.drains import (
    NOTHING_ASKED,
    PARTS,
    Asked,
    overdue,
    remaining,
    share_after,
    step_of,
    terms_of,
    with_deadline,
)
from lbfast.control.engine import Clock, SharedFace, StickFace, TableFace, Timer, Timers, persistence_table
from lbfast.control.marks import AdminMark, Marks, PinMark, WeightMark
from lbfast.control.protocol import ControlError
from lbfast.control.statefile import NAME, MarksFile
from lbfast.control.times import moment
from lbfast.model.state import Admin


@dataclass
class AdminBook:
    """The one writer of admin state."""

    file: MarksFile
    shared: SharedFace
    clock: Clock
    timers: Timers | None = None  # None: no deadlines run (restoring before the first fork)
    announce: Callable[[str, str, str], None] | None = None  # service, real server, message
    _deadlines: dict[int, Timer] = field(default_factory=dict)

    @property
    def marks(self) -> Marks:
        return self.file.marks

    def set_admin(
        self, service: ServiceInfo, real: RealInfo, admin: Admin, by: str, reason: str, asked: Asked = NOTHING_ASKED
    ) -> None:
        """Keep and apply an operator's wish.  Repeating a drain starts its deadline again."""
        mark = None
        if admin is not Admin.ONLINE:
            mark = AdminMark(str(admin), by, self.clock.now_iso(), reason)
        if mark is not None and admin is Admin.DRAIN:
            mark = with_deadline(mark, service, asked, self.clock.wall())
        self._keep(self.marks.with_admin(real.key, mark))
        self._apply(service, real, mark, again=True)

    def set_weight(self, real: RealInfo, weight: int, by: str) -> None:
        """Keep and apply a weight; the configured one ends the override."""
        mark = None if weight == real.weight else WeightMark(weight, by, self.clock.now_iso())
        self._keep(self.marks.with_weight(real.key, mark))
        self.shared.table.set_weight(real.slot, weight)

    def pin(self, service: ServiceInfo, stick: StickFace, client: str, real: RealInfo, by: str) -> None:
        before = self.marks
        self._keep(before.with_pin(service.key, client, PinMark(real.key, by, self.clock.now_iso())))
        try:
            _pin(stick, client, real, self.clock)
        except OSError as error:
            self._keep(before)
            if error.errno != errno.ENOSPC:
                raise
            raise ControlError(
                "table_full",
                f"{client} cannot be pinned: its bucket of the persistence table of {service.label!r} is full of "
                "clients with open connections; try again later or enlarge the table",
            ) from error

    def forget_pins(self, service: ServiceInfo, gone: Callable[[str, PinMark], bool]) -> None:
        self._keep(self.marks.without_pins(service.key, gone))

    def restore(self, catalog: Catalog) -> None:
        """Apply everything kept.  Idempotent: what already stands in shared memory is left alone."""
        for service, real in catalog.pairs():
            weight = self.marks.weights.get(real.key)
            if weight is not None and self.shared.table.real(real.slot)["weight"] != weight.weight:
                self.shared.table.set_weight(real.slot, weight.weight)
            self._apply(service, real, self.marks.admin.get(real.key), again=False)
        for service in catalog.services:
            self._restore_pins(service)

    def forget_deadlines(self) -> None:
        """Before ``restore`` with another catalog: it starts again those that still have their server."""
        self.close()

    def close(self) -> None:
        """Stop the deadlines' timers; what they were waiting for stays in the state file."""
        for timer in self._deadlines.values():
            timer.cancel()
        self._deadlines.clear()

    def _keep(self, marks: Marks) -> None:
        try:
            self.file.replace(marks)
        except OSError as error:
            raise ControlError(
                "internal",
                f"nothing was changed: the decision could not be kept in {self.file.path} ({error.strerror}); "
                "see to the disk, then repeat the command",
            ) from error

    def _apply(self, service: ServiceInfo, real: RealInfo, mark: AdminMark | None, *, again: bool) -> None:
        """Bring shared memory to a mark; ``again`` also repeats what already stands."""
        table = self.shared.table
        self._cancel(real.slot)
        before = table.real(real.slot)
        wanted = Admin.ONLINE if mark is None else mark.admin
        same = before["admin"] == wanted
        expired = mark is not None and (mark.expired or (same and before["drain_expired"] and not again))
        if again or not same:
            table.set_admin(real.slot, wanted)
            if wanted is Admin.HALT:
                table.cut(real.slot)
        if table.real(real.slot)["drain_expired"] != expired:
            table.set_drain_expired(real.slot, expired)
        if mark is not None and mark.deadline_at is not None and not expired:
            self._start(service, real, mark)

    def _start(self, service: ServiceInfo, real: RealInfo, mark: AdminMark) -> None:
        terms = terms_of(service, mark)
        if terms is None:
            return  # it was the configuration's, and was taken out there since
        delay = remaining(mark, self.clock.wall(), terms.length)
        begun_ms = self.clock.now_ms() - round(1000 * overdue(mark, self.clock.wall(), terms.stagger))
        if self.timers is not None:
            later = self.timers.call_later
            self._deadlines[real.slot] = later(
                delay, lambda: self._spread(service, real, mark, self.clock.now_ms() if delay else begun_ms)
            )
        elif delay == 0:
            share = share_after(self.clock.now_ms() - begun_ms, terms.stagger)
            if share < PARTS:
                self.shared.table.set_drain_share(real.slot, share, terms.cut)
            else:
                expire_drain(self.shared.table, real, terms.cut)

    def _spread(self, service: ServiceInfo, real: RealInfo, mark: AdminMark, begun_ms: int) -> None:
        """From the deadline on: the clients in turn, the last step is the end."""
        self._deadlines.pop(real.slot, None)
        terms = terms_of(service, mark)
        if self.marks.admin.get(real.key) != mark or terms is None or self.timers is None:
            return  # the operator has decided otherwise
        share = share_after(self.clock.now_ms() - begun_ms, terms.stagger)
        if share >= PARTS:
            self._expire(service, real, mark, terms.cut)
            return
        before = self.shared.table.real(real.slot)["drain_share"]
        if not before:
            what = "moved and cut" if terms.cut else "moved"
            self._say(service, real, f"drain deadline passed: its clients are {what} over {terms.stagger:g} s")
        self.shared.table.set_drain_share(real.slot, max(share, before, 1), terms.cut)
        pause = step_of(terms.stagger)
        again = self.timers.call_later(pause, lambda: self._spread(service, real, mark, begun_ms))
        self._deadlines[real.slot] = again

    def _expire(self, service: ServiceInfo, real: RealInfo, mark: AdminMark, cut: bool) -> None:
        note = ""
        try:
            self.file.replace(self.marks.with_admin(real.key, replace(mark, expired=True)))
        except OSError as error:  # the deadline is a promise: it holds on a full disk too
            note = f" (could not be kept in {self.file.path}: {error.strerror})"
        expire_drain(self.shared.table, real, cut)
        what = "its connections are cut" if cut else "open connections may end by themselves"
        self._say(service, real, f"drain deadline passed: no client returns any more, {what}{note}")

    def _say(self, service: ServiceInfo, real: RealInfo, message: str) -> None:
        if self.announce is not None:
            self.announce(service.label, real.label, message)

    def _cancel(self, slot: int) -> None:
        timer = self._deadlines.pop(slot, None)
        if timer is not None:
            timer.cancel()

    def _restore_pins(self, service: ServiceInfo) -> None:
        stick = persistence_table(self.shared, service)
        reals = {real.key: real for real in service.reals}
        for client, mark in self.marks.pins.get(service.key, {}).items():
            real = reals.get(mark.real)
            if stick is None or real is None:
                continue  # kept all the same: the configuration may come back
            entry = stick.get(client)
            if entry is not None and entry["pinned"] and entry["real"] == real.slot:
                continue
            try:
                _pin(stick, client, real, self.clock)
            except OSError as error:
                self._say(service, real, f"{client} could not be pinned again: {error.strerror}")


def _pin(stick: StickFace, client: str, real: RealInfo, clock: Clock) -> None:
    stick.pin(client, real.slot, stick.real_tag(real.id), clock.now_ms())


def expire_drain(table: TableFace, real: RealInfo, cut: bool) -> None:
    """What the end of a drain does."""
    table.set_drain_expired(real.slot, True)
    if cut:
        table.cut(real.slot)


def restore_admin(state_dir: Path, catalog: Catalog, shared: SharedFace, clock: Clock) -> str | None:
    """Apply the kept admin state before the first worker is forked, so that a halted server never gets a
    client in between.  Returns a message when the state file could not be used; it was then moved aside."""
    book = AdminBook(MarksFile(state_dir / NAME, clock.wall), shared, clock)
    book.restore(catalog)
    return book.file.trouble


def admin_note(mark: AdminMark | None) -> str | None:
    """Who, when and why, in one line; None when the real server is online."""
    if mark is None:
        return None
    done = {"drain": "drained", "halt": "halted"}[mark.state]
    text = f"{done} by {mark.by} at {moment(mark.at)}"
    if mark.reason:
        text += f": {mark.reason}"
    if mark.expired:
        return text + " (deadline passed)"
    if mark.deadline_at is None:
        return text
    then = ", then cut" if mark.cut else ""
    over = f", over {mark.stagger:g} s" if mark.stagger else ""
    return text + f" (until {moment(mark.deadline_at)}{then}{over})"
