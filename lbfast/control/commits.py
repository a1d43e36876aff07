"""Changes the running configuration: plans, commits, confirms, reverts; each takes whole effect or none.

The order: the supervisor opens what is new (or refuses); the version is written;
health judges new real servers; then, without a pause, settings, catalog and admin state change together and the
supervisor is told to activate.  From that moment on the commit stands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from lbfast.config.candidate import Candidate, pack_candidate
from lbfast.config.commit import Plan, PlanError, ids_of, plan_commit
from lbfast.config.errors import ConfigError
from lbfast.config.id_file import FILE_NAME, load_ids, save_ids
from lbfast.config.ids import Key, KnownIds, assign_ids
from lbfast.config.impact import CUT, Impact, impact
from lbfast.config.own import keep_own_settings, with_changes
from lbfast.config.publish import Placed, publish_new_reals, publish_reals, publish_services
from lbfast.config.source import parse_source
from lbfast.config.steps import LIVE_KEYS, ChangeWorkers, RemoveReal
from lbfast.config.store import Loaded, parse
from lbfast.config.taken import note_taken
from lbfast.config.unconfirmed import Unconfirmed
from lbfast.config.versions import ASIDE, Version, VersionStore
from lbfast.control.catalog import catalog_of
from lbfast.control.certificate_file import certificate_fault
from lbfast.control.confirm import AGAIN_S, Waiting
from lbfast.control.difference import differing_lines
from lbfast.control.engine import Engine
from lbfast.control.facts import busy_slots, facts_of
from lbfast.control.line import SupervisorLine
from lbfast.control.log_targets import why_unwritable
from lbfast.control.protocol import ControlError
from lbfast.control.removals import Removals
from lbfast.model.appliance import Config

if TYPE_CHECKING:
    from lbfast._table import Table

Report = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What somebody wants to become the running configuration."""

    text: str
    file: str
    by: str
    reason: str = ""
    removed: str = CUT
    against: int | None = None
    confirm: float | None = None  # seconds
    cut_after: float | None = None  # seconds; then what is left on servers that were removed gently is cut
    replica_ids: Mapping[Key, UUID] | None = None  # of the peer that has committed it: its identities win
    kept: Version | None = None  # as both boxes of a pair keep it: the same number, author and time
    waits: Unconfirmed | None = None  # of the peer: what it has committed waits there to be confirmed


@dataclass(frozen=True)
class _Planned:
    wish: Wish
    loaded: Loaded
    candidate: Placed
    known: KnownIds
    plan: Plan
    impact: Impact

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(step.words() for step in self.plan.steps)


class Commits:
    """The one writer of settings while lbfast runs.  ``swapped`` is told the new configuration."""

    def __init__(
        self,
        engine: Engine,
        running: Placed,
        version: int,
        line: SupervisorLine,
        state_dir: Path,
        swapped: Callable[[Config], None],
    ) -> None:
        self._engine = engine
        self.running = running
        self.version = version
        self.line = line
        self.store = VersionStore(state_dir)
        self._state_dir = state_dir
        self._swapped = swapped
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting = Waiting(state_dir, engine.clock, self._begin_revert)
        self._removals = Removals(
            state_dir,
            engine.shared.table,
            engine.clock,
            lambda: self.running.layout.reals.values(),
            lambda text: engine.announce(text),
        )

    # --- life -----------------------------------------------------------------

    def start(self) -> None:
        """Take up what a control process before us left: versions that never ran, a commit not yet confirmed."""
        if self.version:
            self.store.drop_after(self.version)
        self._removals.start(asyncio.get_running_loop())
        pair = self._engine.pair
        # The peer may know better what has become of what waits: time to hear that.
        least = AGAIN_S if pair is not None and pair.is_paired else 0.0
        if damage := self._waiting.start(asyncio.get_running_loop(), self.version, least):
            self._engine.announce(damage)

    async def stop(self) -> None:
        self._waiting.stop()
        self._removals.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def unconfirmed(self) -> Unconfirmed | None:
        return self._waiting.unconfirmed

    # --- verbs ----------------------------------------------------------------

    def plan(self, wish: Wish) -> Report:
        """What a commit of this text would do."""
        return self._report(self._plan(wish))

    async def commit(self, wish: Wish) -> Report:
        """Do it; the task goes on when whoever asked goes away."""
        task = asyncio.create_task(self._commit_in_pair(wish))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def confirm(self, by: str) -> Report:
        if self.unconfirmed is None:
            raise ControlError("nothing_pending", f"nothing waits to be confirmed: version {self.version} stands")
        if self._tasks:
            raise ControlError("busy", "a commit or a revert is under way; try again")
        pair = self._engine.pair
        try:
            self._waiting.confirm(by, for_peer=pair is not None and pair.is_paired)
        except OSError as error:
            message = f"not confirmed: {self._state_dir} cannot be written to ({error.strerror})"
            raise ControlError("internal", message) from error
        self._engine.announce(f"version {self.version} confirmed by {by}")
        return {"version": self.version}

    async def revert(self, number: int | None, by: str, reason: str = "") -> Report:
        """Commit an earlier version again; without a number the one before."""
        if number is None:
            number = self.unconfirmed.before if self.unconfirmed else self._before(self.version)
        text = self.text_of(number)
        wish = Wish(text, f"version {number}", by, reason or f"revert to version {number}")
        return await self.commit(wish)

    def text_of(self, number: int) -> str:
        text = self.store.text(number)
        if text is None:
            kept = self.store.numbers()
            there = f"{kept[0]} to {kept[-1]} are kept" if kept else "none is kept"
            raise ControlError("no_such_version", f"there is no version {number}; {there}")
        return text

    def history(self) -> Report:
        versions = [
            {**version.__dict__, "changes": list(version.changes), "running": version.number == self.version}
            for version in self.store.all()
        ]
        waits = None if self.unconfirmed is None else dict(self.unconfirmed.__dict__)
        return {"version": self.version, "unconfirmed": waits, "versions": versions}

    def diff(self, before: int | None, after: int | None) -> Report:
        """From one version to another; by default from the one before to the running one."""
        if before is None:
            before = self._before(self.version)
        after = self.version if after is None else after
        lines = differing_lines(self.text_of(before), self.text_of(after), f"version {before}", f"version {after}")
        return {"before": before, "after": after, "lines": lines}

    def _before(self, number: int) -> int:
        earlier = [each for each in self.store.numbers() if each < number]
        if not earlier:
            raise ControlError("no_such_version", f"there is no version before {number}")
        return earlier[-1]

    @property
    def _table(self) -> Table:
        return cast("Table", self._engine.shared.table)

    # --- planning -------------------------------------------------------------

    def _plan(self, wish: Wish) -> _Planned:
        try:
            loaded = parse(wish.text, wish.file)
        except ConfigError as error:
            raise ControlError("bad_config", str(error)) from None
        self._check_against(wish)
        remembered = load_ids(self._state_dir / FILE_NAME).known
        known = KnownIds({**remembered.ids, **ids_of(self.running.config).ids, **(wish.replica_ids or {})})
        config, known = assign_ids(loaded.config, known)
        config = self._with_own(config, loaded, is_replica=wish.replica_ids is not None)
        try:
            busy = busy_slots(self._engine.shared, self.running)
            plan = plan_commit(self.running.config, self.running.layout, config, *busy)
        except PlanError as error:
            raise ControlError("refused", str(error)) from None
        candidate = Placed(config, plan.layout)
        facts = facts_of(self._engine.shared, self._engine.catalog, plan, self.running, candidate)
        return _Planned(wish, loaded, candidate, known, plan, impact(plan, facts, wish.removed))

    def _with_own(self, config: Config, loaded: Loaded, *, is_replica: bool) -> Config:
        """The text that runs may be the peer's: what is this box's own changes only with an edit made here."""
        data = loaded.source.data
        try:
            before = data if is_replica else parse_source(self.text_of(self.version), "").data
        except (ConfigError, ControlError):  # not kept any more: everything counts as an edit
            return config
        return with_changes(config, self.running.config, data, before)

    def _check_against(self, wish: Wish) -> None:
        if wish.against is None or wish.against == self.version:
            return
        old = self.store.text(wish.against)
        lines = [f"the running configuration is version {self.version}, this was planned against {wish.against}"]
        if old is not None:
            names = f"version {wish.against}", f"version {self.version}"
            lines += ["what changed since:", *differing_lines(old, self.text_of(self.version), *names)]
        raise ControlError("conflict", "\n".join(lines))

    def _report(self, planned: _Planned) -> Report:
        return {
            "version": self.version,
            "steps": [{"kind": step.kind, "text": step.words(), **step.__dict__} for step in planned.plan.steps],
            "impact": {**planned.impact.as_data(), "lines": list(planned.impact.lines)},
            "warnings": [str(doubt) for doubt in planned.loaded.warnings],
        }

    # --- doing ----------------------------------------------------------------

    async def _commit_in_pair(self, wish: Wish) -> Report:
        """In a pair the peer commits first: both have it, or nobody."""
        pair = self._engine.pair
        if pair is None or not pair.is_paired or wish.replica_ids is not None:
            return await self._commit_locked(wish)
        self._check_settled(wish)
        planned = self._plan(wish)  # what is wrong is told before the peer is asked
        if not planned.plan.steps and self._is_running(wish):
            return await self._commit_locked(wish)
        kept = self._version_of(planned, self.version + 1)
        wish = replace(wish, kept=kept, waits=self._waits_for(wish, kept.number))
        ids = [[*key, str(identity)] for key, identity in ids_of(planned.candidate.config).ids.items()]
        return await pair.commit_both(wish, ids, self._engine.clock.wall(), lambda: self._commit_locked(wish))

    async def _commit_locked(self, wish: Wish) -> Report:
        if self._lock.locked():
            raise ControlError("busy", "another commit is under way; try again")
        async with self._lock:
            try:
                return await self._commit(wish)
            except ControlError as error:
                if error.code in ("refused", "internal"):  # the rest are mistakes that their maker is told
                    message = f"commit by {wish.by} failed: {error.message}"
                    self._engine.announce(message, failed="commit")
                raise

    async def _commit(self, wish: Wish) -> Report:
        self._check_settled(wish)
        planned = self._plan(wish)
        if fixed := [key for step in planned.plan.of(ChangeWorkers) for key in step.keys if key not in LIVE_KEYS]:
            raise ControlError("refused", f"{', '.join(fixed)}: cannot be changed while running; restart lbfast")
        self._check_log(planned)
        self._check_certificate(planned)
        version = self._number(planned)
        report = self._report(planned) | {"before": self.version, "confirm_until": None}
        if not planned.plan.steps and self._is_running(wish):
            return report
        sticks = await self._open(planned, version.number)
        waits = self._waits_for(wish, version.number) or wish.waits
        self._keep(planned, version, waits)
        try:
            publish_new_reals(self._table, self.running, planned.candidate)
            coming = catalog_of(planned.candidate.config, planned.candidate.layout)
            self._engine.catalog = self._engine.catalog.beside(coming)  # health will speak of them
            await self.line.probe()
            self._publish(planned, sticks)
            answer = self.line.begin_activate(wish.removed == CUT)
        except BaseException:
            self.line.cancel(True)
            self._unpublish(sticks)
            raise
        self.version = version.number
        old, self.running = self.running, planned.candidate
        self._waiting.begin(waits)
        await self._wind_up(planned, old, answer)
        return report | {"version": self.version, "confirm_until": self._until()}

    def _check_settled(self, wish: Wish) -> None:
        """One that waits to be confirmed is decided first; what the peer has committed is decided there."""
        waits = self.unconfirmed
        if waits is None or wish.replica_ids is not None or wish.file == f"version {waits.before}":
            return
        raise ControlError("busy", f"version {self.version} waits to be confirmed: `confirm` or `revert` it first")

    def _is_running(self, wish: Wish) -> bool:
        """Whether nothing is to be done: this text runs, and is kept as the peer keeps it."""
        if wish.text != self.store.text(self.version):
            return False
        return wish.replica_ids is None or wish.kept is None or wish.kept == self.store.get(self.version)

    def _version_of(self, planned: _Planned, number: int) -> Version:
        wish, now = planned.wish, self._engine.clock.wall()
        return Version(number, now.isoformat(timespec="seconds"), wish.by, wish.reason, wish.file, planned.words)

    def _number(self, planned: _Planned) -> Version:
        """As it will be kept: what the peer has committed as the peer keeps it, also with a number below ours."""
        kept, number = planned.wish.kept, self.version + 1
        if kept is None:
            return self._version_of(planned, number)
        return kept if planned.wish.replica_ids is not None else replace(kept, number=number)

    def _check_log(self, planned: _Planned) -> None:
        """A log file that this process cannot write to refuses the commit: records must not get lost by an edit."""
        log, before = planned.candidate.config.log, self.running.config.log
        if log.file is not None and log.file != before.file and (why := why_unwritable(log.file)):
            problem = planned.loaded.problem(("log", "file"), f'"{log.file}"', why)
            raise ControlError("bad_config", str(problem))

    def _check_certificate(self, planned: _Planned) -> None:
        """One that the web interface, which has the rights of this process, cannot use would end it."""
        web = planned.candidate.config.web
        if web != self.running.config.web and (fault := certificate_fault(web)):
            problem = planned.loaded.problem(("web", fault.key), fault.found, fault.expected)
            raise ControlError("bad_config", str(problem))

    async def _open(self, planned: _Planned, number: int) -> dict[int, Any]:
        memfd = pack_candidate(Candidate(planned.loaded, planned.candidate, number))
        try:
            return await self.line.open(memfd)
        except BaseException:
            self.line.cancel(False)
            raise
        finally:
            os.close(memfd)

    def _keep(self, planned: _Planned, version: Version, waits: Unconfirmed | None) -> None:
        """Everything that must be on disk before the commit stands; on a failure nothing was changed."""
        wish = planned.wish
        try:
            save_ids(self._state_dir / FILE_NAME, planned.known)
            if self.store.text(version.number) not in (None, wish.text):
                self.put_aside([version.number])
            keep_own_settings(self._state_dir, planned.candidate.config, version.number)
            self.store.add(version, wish.text)
            if waits is not None:
                self._waiting.keep(waits)
        except OSError as error:
            self.line.cancel(False)
            self._waiting.restore()
            self._keep_settings_again()
            raise ControlError(
                "internal", f"nothing was changed: {self._state_dir} cannot be written to ({error.strerror})"
            ) from error

    def _waits_for(self, wish: Wish, number: int) -> Unconfirmed | None:
        if wish.confirm is None:
            return None
        until = (self._engine.clock.wall() + timedelta(seconds=wish.confirm)).isoformat()
        return Unconfirmed(number, self.version, wish.by, until, wish.confirm)

    def put_aside(self, numbers: Sequence[int]) -> None:
        """Versions of this box that the peer does not know give way to the pair's history; OSError when they cannot."""
        if moved := self.store.put_aside(numbers):
            which = ", ".join(map(str, moved))
            self._engine.announce(
                f"the history is the pair's: version {which} of this box alone is kept in {self._state_dir / ASIDE}"
            )

    def _publish(self, planned: _Planned, sticks: dict[int, Any]) -> None:
        """Real servers, their admin state, then the services that name them: no await in between."""
        engine, after, table = self._engine, planned.candidate, self._table
        weights = {bytes.fromhex(key): mark.weight for key, mark in engine.book.marks.weights.items()}
        publish_reals(table, self.running, after, weights)
        shared: Any = engine.shared
        shared.sticks.update(sticks)
        engine.catalog = catalog_of(after.config, after.layout).beside(engine.catalog)
        engine.book.forget_deadlines()
        engine.book.restore(engine.catalog)
        publish_services(table, self.running, after)

    def _unpublish(self, sticks: dict[int, Any]) -> None:
        """The supervisor puts the table back; this is our own part."""
        self.store.drop_after(self.version)
        self._waiting.restore()
        self._keep_settings_again()
        shared: Any = self._engine.shared
        for slot in sticks:
            shared.sticks.pop(slot, None)
        self._engine.catalog = catalog_of(self.running.config, self.running.layout)
        self._engine.book.forget_deadlines()
        self._engine.book.restore(self._engine.catalog)

    def _keep_settings_again(self) -> None:
        with suppress(OSError):
            keep_own_settings(self._state_dir, self.running.config, self.version)

    async def _wind_up(self, planned: _Planned, old: Placed, answer: asyncio.Future[Any]) -> None:
        wish, engine = planned.wish, self._engine
        text = f"version {self.version} committed by {wish.by}" + (f": {wish.reason}" if wish.reason else "")
        count = len(planned.plan.steps)
        engine.announce(f"{text}; {count} step{'' if count == 1 else 's'}; {planned.impact.lines[0]}")
        self._swapped(planned.candidate.config)
        self._note(wish)
        try:
            await self.line.wait_activated(answer)
        except (TimeoutError, ControlError) as error:
            engine.announce(f"version {self.version} stands, but not everything old is gone: {error}", "process")
        self._forget_removed(planned, old)
        if wish.cut_after is not None and (gone := planned.plan.of(RemoveReal)):
            removed = [(step.slot, f"{step.label!r} / {step.real!r}") for step in gone]
            self._removals.add(removed, wish.cut_after, asyncio.get_running_loop())

    def _note(self, wish: Wish) -> None:
        """What is on disk for the next start, beside the version itself."""
        try:
            self.put_aside([number for number in self.store.numbers() if number > self.version])
            given = os.path.abspath(self._engine.about.config)
            if wish.replica_ids is None and wish.file in (given, self._engine.about.config):
                note_taken(self._state_dir, given, wish.text)
        except OSError as error:
            self._engine.announce(f"{self._state_dir} cannot be written to ({error.strerror})", "process")

    def _forget_removed(self, planned: _Planned, old: Placed) -> None:
        """Entries of removed servers, and tables of services that have none any more."""
        shared: Any = self._engine.shared
        stays = set(planned.candidate.layout.services.values())
        for step in planned.plan.of(RemoveReal):
            stick = shared.sticks.get(step.service_slot)
            if step.service_slot in stays and stick is not None:
                stick.clear(None, step.slot)
        config, layout = planned.candidate.config, planned.candidate.layout
        needed = {layout.services[service.label] for service in config.virtual_services if service.has_table}
        for slot in set(old.layout.services.values()) - needed:
            shared.sticks.pop(slot, None)

    # --- confirm --------------------------------------------------------------

    def _begin_revert(self) -> None:
        task = asyncio.get_running_loop().create_task(self._revert_unconfirmed())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _revert_unconfirmed(self) -> None:
        waits, pair = self.unconfirmed, self._engine.pair
        if waits is None:
            return
        if pair is not None and pair.edited_on() is not None:  # that box reverts it, on both
            self._waiting.put_off()
            return
        try:
            await self.revert(waits.before, "lbfast", f"version {waits.version} was not confirmed")
        except ControlError as error:
            self._engine.announce(f"version {waits.version} was not confirmed, but cannot be reverted: {error.message}")
            self._waiting.put_off()

    def _until(self) -> str | None:
        return None if self.unconfirmed is None else self.unconfirmed.deadline_at


def commit_file(path: str, fd: int | None = None) -> Wish:
    """The wish that the file at ``path`` becomes the running configuration; OSError when it cannot be read.

    ``fd``: the same file, opened by somebody with the right to; closed here.
    """
    with open(path if fd is None else fd, encoding="utf-8-sig", newline="") as stream:  # as a start reads it
        return Wish(stream.read(), path, "SIGHUP")
