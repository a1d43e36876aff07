"""The ha process: puts the parts together, runs them on one asyncio loop, and lets the addresses go at the end."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lbfast import __version__
from lbfast._replica import Replica
from lbfast._shm import now_ms
from lbfast.ha.config_sync import ConfigSync, ask_control
from lbfast.ha.desk import Desk
from lbfast.ha.door import SOCKET_NAME, Door
from lbfast.ha.doors import Doors
from lbfast.ha.duty import Duty
from lbfast.ha.echo_path import make_paths
from lbfast.ha.election import USEFUL, HaState, Memory
from lbfast.ha.failback import Failback
from lbfast.ha.heartbeat import BeatPath, Heartbeats
from lbfast.ha.link import Link, LinkError, ensure_identity
from lbfast.ha.linking import Linking
from lbfast.ha.local_settings import local_settings
from lbfast.ha.mover import Mover
from lbfast.ha.moving import Means, Peer
from lbfast.ha.note import Note, read_note
from lbfast.ha.pair_file import (
    Lives,
    Pair,
    PairFileError,
    begin_life,
    keep_lives,
    load_maintenance,
    load_pair,
)
from lbfast.ha.ping import Pings, resolve_targets
from lbfast.ha.plan import HaPlan, unpack_plan
from lbfast.ha.replication import Handler, Replication
from lbfast.ha.routes import Routes
from lbfast.ha.skew import PROTOCOL
from lbfast.ha.takeover import Addresses, Holder, Prober
from lbfast.ha.timing import make_timing
from lbfast.ha.verbs import HaVerbs
from lbfast.ha.watch import CountersFace, TableFace, Watch
from lbfast.ha.wire import Guard

CARD_NAME = "ha.json"
_MOST_TICK_MS = 25
_AFTER_TAKEOVER_S = 1.0
_QUIET_MS = 2500  # of a link on which something is said every second
_IDLE_S = 0.1  # without a peer nothing is due
_MOST_WORDS = 8000  # of an event: a message on the channel has its limit


class ChannelFace(Protocol):
    """The child's end of the channel to the supervisor."""

    def fileno(self) -> int: ...
    def send_now(self, message: Mapping[str, object], fds: Sequence[int] = (), /) -> bool: ...
    def receive_fds_now(self) -> tuple[dict[str, Any], list[int]] | None: ...


@dataclass
class HaSetup:
    """What the supervisor passes in."""

    plan: HaPlan
    counters: CountersFace
    table: TableFace
    sticks: dict[int, Any]
    addresses: Addresses
    state_dir: Path
    runtime_dir: Path
    attach: Any  # a stick table from a descriptor
    journal: Any  # _journal.Journal
    settle: Callable[[], None]  # gives up the rights that only the start needs
    owner: int | None = None  # of our socket: the user that asks


def run_ha(setup: HaSetup, channel: ChannelFace) -> int:
    """The whole life of the ha process; its exit status."""
    _hurry()
    try:
        return asyncio.run(HaProcess(setup, channel).run())
    except (OSError, PairFileError) as error:
        print(f"lbfast ha: cannot start: {error}", file=sys.stderr, flush=True)
        return 2


def _hurry() -> None:
    """Heartbeats must leave on time on a machine whose cores are all busy."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)
    gc.freeze()


class HaProcess:
    """All parts of a running ha process."""

    def __init__(self, setup: HaSetup, channel: ChannelFace) -> None:
        self.setup = setup
        self.plan = setup.plan
        self.channel = channel
        self.pair: Pair | None = None
        self.duty: Duty | None = None
        self.lives = Lives()
        self.problems: list[str] = []
        self.routes = Routes()
        self.linking: Linking | None = None
        self.replica = Replica(setup.sticks)
        self.peer_facts: dict[str, Any] = {}
        self.handlers: dict[str, Handler] = {}  # of the peer's questions
        self.desk = Desk(self)
        means = Means(
            plan=lambda: self.plan,
            doors=Doors(channel.send_now, now_ms, self.tell),
            note=Note(channel.send_now),
            peer=self._find_peer,
            now=now_ms,
            is_active=lambda: self.duty is not None and self.duty.is_active,
            is_peer_active=self._is_peer_active,
            moving=setup.addresses.moving,
            tell=self.tell,
        )
        self.mover = Mover(means)
        self.sync = ConfigSync(
            setup.state_dir,
            partial(ask_control, setup.runtime_dir / "control.sock"),
            self._live_link,
            lambda: self.plan.digest,
            lambda: self.pair is not None and self.pair.is_primary,
            self.tell,
        )
        self._verbs = HaVerbs(self)
        self._failback = Failback()
        self._card = ""  # what was last written of who this box is
        self._stop = asyncio.Event()
        self._linking_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._loop = loop
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_reader(self.channel.fileno(), self._hear)
        self.handlers = {
            "unpair": self.desk.on_unpair,
            **self.sync.handlers(),
            **self.mover.handlers(),
        }
        door = Door(self.setup.runtime_dir / SOCKET_NAME, self._verbs.handlers(), self.setup.owner)
        await door.start()
        self.setup.settle()
        ensure_identity(self.setup.state_dir, socket.gethostname())
        pair = load_pair(self.setup.state_dir)
        if pair is not None:
            self.begin(pair)
        self.desk.follow()
        self.say({"event": "ready"})
        self.say({"event": "recover"})
        timer = asyncio.create_task(self._turn_for_ever())
        try:
            await self._stop.wait()
        finally:
            timer.cancel()
            await asyncio.gather(timer, return_exceptions=True)
            await door.stop()
            await self.desk.stop()
            # Without a release before, a successor comes: it goes on holding the addresses.
            self.end(keep_addresses=self.duty is not None and not self.duty.is_stopping)
        return 0

    # --- the pair ---------------------------------------------------------------

    def begin(self, pair: Pair) -> None:
        """Be one of a pair from now on."""
        self.pair = pair
        self.lives = begin_life(self.setup.state_dir, is_primary=pair.is_primary)
        self.duty = self._make_duty(pair)
        now = now_ms()
        if self.setup.addresses.is_held():
            self.duty.resume(now)
        self.say({"event": "pair", "paired": True, "active": self.duty.is_active})
        self.linking = Linking(
            pair,
            self.setup.state_dir,
            lambda: self.plan.settings.replication_port,
            self._replicate,
            self.tell,
        )
        self._linking_task = asyncio.create_task(self._keep_link(self.linking))

    async def _keep_link(self, linking: Linking) -> None:
        try:
            await linking.run()
        except (OSError, LinkError, ssl.SSLError) as error:
            linking.trouble = str(error)
            self.tell(f"there is no replication: {error}")

    def _replicate(self, link: Link) -> Replication:
        return Replication(
            link=link,
            replica=self.replica,
            journal=self.setup.journal,
            plan=lambda: self.plan,
            is_active=lambda: self.duty is not None and self.duty.is_active,
            now=now_ms,
            facts=self.facts,
            heard=self._hear_facts,
            handlers=self.handlers,
            take_images=self.mover.taker.on_images,
            tell=self.tell,
        )

    def _is_peer_active(self) -> bool:
        return self.duty is not None and self.duty.state(now_ms()) is HaState.PASSIVE

    def _live_link(self) -> Replication | None:
        """To a peer that lives: one that has lost its power is not waited for."""
        current, now = None if self.linking is None else self.linking.current, now_ms()
        is_heard = self.duty is not None and self.duty.hears(now)
        return current if current is not None and (is_heard or now - current.received_at < _QUIET_MS) else None

    def facts(self) -> dict[str, Any]:
        """What this box says of itself to the other."""
        duty = self.duty
        watch = None if duty is None else duty.watch
        current = None if self.linking is None else self.linking.current
        return {
            "name": socket.gethostname(),
            "version": __version__,
            "protocol": PROTOCOL,
            "config_version": self.plan.version,
            "digest": self.plan.digest,
            "servers": [] if watch is None else watch.servers(),
            "problems": [*self.problems, *self.routes.problems(self.plan, now_ms())],
            "conflicts": [] if duty is None else list(duty.holder.conflicts.words()),
            "settings": local_settings(self.plan.own),
            **self.sync.facts(),
            **({} if current is None else current.describe_lag()),
        }

    def _hear_facts(self, facts: dict[str, Any]) -> None:
        self.peer_facts = facts
        if self.linking is not None:
            self.linking.meet()
        self.desk.confirm()
        self._start(self.sync.compare(facts))

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def use_paths(self, pair: Pair) -> None:
        """The same pair, with other further paths."""
        self.pair = pair
        if self.duty is not None:
            self.duty.beats.use(self._make_paths(pair, self.duty.watch))
        if self.linking is not None:
            self.linking.pair = pair

    def end(self, *, keep_addresses: bool = False) -> None:
        """Let go of everything, and say so to the peer."""
        if self._linking_task is not None:
            self._linking_task.cancel()
            self._linking_task = self.linking = None
        if keep_addresses:
            self.mover.stay()
        duty, self.duty = self.duty, None
        if duty is not None:
            if not duty.is_stopping and not keep_addresses:
                duty.leave(now_ms())
            duty.prober.stop()
            duty.holder.conflicts.stop()
            duty.watch.close()
            duty.beats.close()

    def _make_duty(self, pair: Pair) -> Duty:
        plan, now = self.plan, now_ms()
        self._set_wanted()
        watch = self._make_watch()
        guard = Guard(bytes.fromhex(pair.key), self.lives.own, self.lives.peer)
        return Duty(
            memory=Memory(self.lives.own, pair.is_primary, now, claim=self.lives.own << 16 & 0xFFFF_FFFF_FFFF),
            timing=make_timing(plan.settings.interval, plan.settings.missed),
            watch=watch,
            holder=Holder(self.setup.addresses, plan.settings.announce_interval),
            prober=Prober(self.setup.addresses, yields=not pair.is_primary),
            beats=Heartbeats(
                self._make_paths(pair, watch),
                plan.settings.port,
                guard,
                self._watch_socket,
                self._unwatch_socket,
            ),
            tell=self.tell,
            moved=self._on_moved,
            is_in_maintenance=load_maintenance(self.setup.state_dir) is not None,
        )

    def _make_paths(self, pair: Pair, watch: Watch) -> list[BeatPath]:
        targets = [target.address for target in watch.pings.targets] if self.plan.settings.echo_paths else []
        return make_paths(pair.all_paths, targets)

    def _set_wanted(self) -> None:
        self.problems = self.setup.addresses.set_wanted(self.plan.wanted)
        for problem in self.problems:
            self.tell(problem)

    def _make_watch(self) -> Watch:
        plan = self.plan
        return Watch(
            plan,
            self.setup.counters,
            self.setup.table,
            Pings(resolve_targets(plan.settings.ping_addresses)),
            interfaces=tuple(self.setup.addresses.interfaces()),
        )

    def _on_moved(self, is_active: bool) -> None:
        if self.linking is not None and self.linking.current is not None:
            self.linking.current.poke()
        self.say({"event": "pair", "paired": True, "active": is_active})
        self.mover.on_addresses(are_here=is_active)
        if is_active:
            self._loop.call_later(_AFTER_TAKEOVER_S, self._release_held)

    def _find_peer(self) -> Peer | None:
        return None if self.linking is None else self.linking.current

    def _release_held(self) -> None:
        """What the peer's connections held ages from now on; after the first clients have been served."""
        if self.duty is not None and self.duty.is_active:
            self.replica.release_held(now_ms())

    def _watch_socket(self, sock: socket.socket) -> None:
        self._loop.add_reader(sock.fileno(), self._on_heartbeat)

    def _unwatch_socket(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())

    def _on_heartbeat(self) -> None:
        if self.duty is not None:
            self.duty.answer(now_ms())

    # --- time -------------------------------------------------------------------

    async def _turn_for_ever(self) -> None:
        tick = min(_MOST_TICK_MS, max(5, self.plan.settings.interval // 4))
        due = now_ms()
        while True:
            if self.duty is None:
                await asyncio.sleep(_IDLE_S)
                due = now_ms()
                continue
            now = now_ms()
            try:
                self.duty.turn(now, due)
            except OSError as error:  # the addresses are renewed and the peer is heard at the next turn
                self.tell(f"a turn failed: {error}")
            self._keep_peer_life()
            self._write_card(now)
            self._fail_back(now)
            due = max(due + tick, now_ms() + 1) if now - due < 20 * tick else now_ms() + tick
            await asyncio.sleep(max(0.0, (due - now_ms()) / 1000))

    def _fail_back(self, now: int) -> None:
        duty = self.duty
        if duty is None or not self.plan.settings.auto_failback:
            return
        beat = duty.memory.beat
        could = (
            duty.memory.is_primary
            and duty.state(now) is HaState.PASSIVE
            and beat is not None
            and duty.steady.level >= max(beat.level, USEFUL)
            and self.linking is not None
            and self.linking.current is not None
            and self.linking.current.is_synced
        )
        if self._failback.turn(self.plan.settings, now, time.strftime("%H:%M"), could=could):
            if against := self._verbs.objections(duty):
                self.tell(f"failback: not yet, {'; '.join(against)}")
                return
            self.tell("failback: the primary asks for the addresses again")
            duty.order(now)

    def _write_card(self, now: int) -> None:
        """Who this box is at the moment, for control: a small file, replaced when it changes."""
        if self.duty is None or self.pair is None:
            return
        heard = self.duty.hears(now)
        card = {"role": self.pair.role, "active": self.duty.is_active, "heard": heard, "peer": self.pair.peer}
        text = json.dumps(card)
        if text != self._card:
            path = self.setup.runtime_dir / CARD_NAME
            new = path.with_suffix(".new")
            new.write_text(text)
            os.replace(new, path)
            self._card = text

    def _keep_peer_life(self) -> None:
        """A new run of the peer: from now on nothing of its earlier ones counts, after our restart neither."""
        if self.duty is not None and self.duty.beats.guard.known_life != self.lives.peer:
            self.lives = Lives(self.lives.own, self.duty.beats.guard.known_life)
            try:
                keep_lives(self.setup.state_dir, self.lives)
            except OSError as error:
                self.tell(f"the peer's life cannot be kept: {error.strerror}")

    # --- the supervisor -----------------------------------------------------------

    def tell(self, message: str) -> None:
        """An event for people."""
        self.say({"event": "process", "message": f"pair: {message}"[:_MOST_WORDS]})

    def say(self, message: Mapping[str, object]) -> None:
        self.channel.send_now(message)

    def _hear(self) -> None:
        while True:
            try:
                received = self.channel.receive_fds_now()
            except BlockingIOError:
                return
            if received is None:
                # The supervisor is gone: the workers go on, and so do the addresses.
                self._loop.remove_reader(self.channel.fileno())
                return
            message, fds = received
            try:
                self._obey(message, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _obey(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        what = message.get("do")
        if what == "stop":
            self._stop.set()
        elif what == "release" and self.duty is not None:
            self.duty.leave(now_ms())
        elif what == "sticks":
            for slot, fd in zip(message.get("slots", ()), fds, strict=False):
                if slot not in self.setup.sticks:
                    self.setup.sticks[slot] = self.setup.attach(fd)
        elif what == "raised":
            self.desk.on_raised(str(message.get("trouble", "")))
        elif what == "doors":
            self.mover.means.doors.on_doors(fds)
        elif what == "recover" and fds:
            self._start(self.mover.recover(read_note(message, *fds)))
        elif what == "plan" and fds:
            self._take_plan(unpack_plan(fds[0]))

    def _take_plan(self, plan: HaPlan) -> None:
        """A commit stands: hold what it says."""
        before, self.plan = self.plan, plan
        slots = {service.slot for service in plan.services}
        for slot in set(self.setup.sticks) - slots:
            del self.setup.sticks[slot]
        self.replica = Replica(self.setup.sticks)
        if self.linking is not None and self.linking.current is not None:
            self.linking.current.renew(self.replica)
        if self.duty is None:
            return
        self._set_wanted()
        duty = self.duty
        duty.timing = make_timing(plan.settings.interval, plan.settings.missed)
        duty.holder.announce_interval_ms = plan.settings.announce_interval
        duty.watch.plan, duty.watch.interfaces = plan, tuple(self.setup.addresses.interfaces())
        if plan.settings.ping_addresses != before.settings.ping_addresses:
            duty.watch.pings.close()
            duty.watch.pings = Pings(resolve_targets(plan.settings.ping_addresses))
        if self.pair is not None:
            duty.beats.use(self._make_paths(self.pair, duty.watch))
        if plan.settings.port != before.settings.port:
            duty.beats.close()
            duty.beats.port = plan.settings.port
        if duty.holder.is_holding:
            duty.holder.renewed_at = 0  # raises what is new at the next turn, and drops what is gone
