"""The supervisor's loop: signals, deaths and messages of children, deadlines; nothing else."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence

from lbfast import __version__
from lbfast.config.files import open_to_read
from lbfast.config.paths import control_socket
from lbfast.supervisor import orphans, systemd
from lbfast.supervisor.backoff import Backoff
from lbfast.supervisor.bodies import HA, WEB, Bodies
from lbfast.supervisor.channel import Channel, ChannelError, Message
from lbfast.supervisor.children import Body, Child, describe_status, start_child
from lbfast.supervisor.desk import Desk
from lbfast.supervisor.estate import Estate, Heritage, describe
from lbfast.supervisor.ha_line import HaLine
from lbfast.supervisor.inherit import Inherit
from lbfast.supervisor.listeners import close_listeners
from lbfast.supervisor.news import News
from lbfast.supervisor.post import Post
from lbfast.supervisor.ranks import Ranks
from lbfast.supervisor.reckoning import Reckoning
from lbfast.supervisor.reexec import execute
from lbfast.supervisor.regain import forget, keep
from lbfast.supervisor.relief import Relief
from lbfast.supervisor.start import Assets
from lbfast.supervisor.states import CUT_WITHIN, LEAVE_WITHIN, START_WITHIN, State
from lbfast.supervisor.store import Store
from lbfast.supervisor.succession import Succession
from lbfast.supervisor.surroundings import is_terminal
from lbfast.supervisor.switch import Switch
from lbfast.supervisor.timers import Timers
from lbfast.supervisor.upgrade import Upgrade
from lbfast.supervisor.wakeup import SignalPipe
from lbfast.supervisor.watchdog import Watchdog
from lbfast.supervisor.worker import STOP_GRACE

ANNOUNCE_AGAIN = (1.0, 5.0)  # an announcement can be lost, or come while a switch is still learning
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Supervisor:
    """One run from the first fork to the last reaped child."""

    def __init__(self, assets: Assets, heritage: Heritage | None = None) -> None:
        """``heritage``: what runs already, when this program has taken over from another one."""
        self._assets = assets
        self._heritage = heritage
        self._bodies = Bodies(assets)
        self._signals = SignalPipe(_SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # blocked across an exec
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
        self._timers = Timers()
        self._store = Store()
        self._post = Post(self.later)
        self._news = News(self.control, self.later)
        self.note, self.complain = self._news.note, self._news.complain
        self._ranks = Ranks(assets, self._bodies, self._post, self._fork, self.later, self.note, self.keep)
        self._ranks.seat_of.update((place, seat) for seat, place in assets.seats.taken.items())
        self.workers, self.pin = self._ranks.workers, self._ranks.pin
        self._reckoning = Reckoning(lambda: assets.shared.counters, lambda: assets.seats.inboxes, self.later)
        self._relief = Relief(self._ranks)
        self.resize = self._relief.begin
        self._succession = Succession(self, self._ranks)
        self._switch = Switch(assets, self, self._post)
        self._upgrade = Upgrade(self, lambda number, why: self._desk.upgrade_failed(number, why))
        self._desk = Desk(self._relief, self, self._upgrade, self._switch)
        self._inherit: Inherit | None = None
        self._ha_line = HaLine(assets, self._ranks, self._post, self.complain)
        self.tell_ha: Callable[[], None] = self._ha_line.tell_plan
        self._backoffs: dict[str, Backoff] = defaultdict(Backoff)
        self._state = State.STARTING
        self._code = 0

    def run(self) -> int:
        """Start everything, supervise until stopped; the exit code."""
        now = time.monotonic()
        for note in self._assets.notes:
            self.note(note)
        if self._heritage is not None:
            self._take_over(self._heritage)
        for name in self._bodies.names:
            self._start(name)
        if self._inherit is not None and not self._inherit.is_apart:
            self._inherit.begin()
        self._timers.at(now + START_WITHIN, self._check_started)
        Watchdog(self._assets.shared.counters.worker).watch(self.workers, self.later, self.complain)
        for delay in ANNOUNCE_AGAIN if self._assets.addresses.raised else ():
            self._timers.at(now + delay, self._announce)
        systemd.ping(self.later)
        while self._state is not State.GONE:
            for key, _ in self._selector.select(self._timers.timeout(time.monotonic())):
                key.data()
            self._timers.run_due(time.monotonic())
        return self._code

    def _take_over(self, heritage: Heritage) -> None:
        self._state = State.RUNNING
        self._news.waiting.extend(heritage.events)
        if not heritage.children:
            self.note("everybody was killed; sockets and tables are those of before, kept by the service manager")
            self.later(0, self._settle)
        else:
            self._inherit = Inherit(self, self._ranks, self._relief, heritage.number, heritage.version)
            self._inherit.is_regained = heritage.is_regained
        for child in heritage.children:
            self._ranks.adopt(child, apart=bool(heritage.old_inboxes))
            self._register(child)
        if heritage.old_inboxes and self._inherit is not None:
            self._assets.is_shut = True
            self._inherit.begin_apart(heritage.old_inboxes)
        for seat, pid in heritage.dead:
            self._repair(Child(f"worker on seat {seat}", 0, pid, -1, Channel.pair()[0], 0.0, seat))
            self._ranks.lose(seat)
        self.keep()

    def _look_at_upgrade(self) -> None:
        if self._inherit is not None:
            names = [self._bodies.worker_name(place) for place in self._ranks.places]
            self._inherit.on_change(is_complete=all(self._is_ready(name) for name in names))

    def finish_upgrade(self) -> None:
        self._inherit = None
        self.keep()
        self._settle()

    def _settle(self) -> None:
        """After a killed supervisor: what ran was taken over, now the file that was given counts."""
        if not self._is_ready("control"):
            self.later(0.05, self._settle)
            return
        self._say_ready()
        if self._heritage is not None and self._heritage.is_regained:
            self._commit_file(only_news=True)

    def leave(self) -> bool:
        """This program has failed; whether those that serve can do without it."""
        if self._state is not State.RUNNING:
            return False
        self._selector.close()
        self._signals.close()
        return True

    def close(self) -> None:
        """Leave no child, whatever happened."""
        self._upgrade.close()
        for child in self._ranks.everybody():
            child.kill(signal.SIGKILL)
            child.reap()
        self._ranks.named.clear()
        self._ranks.others.clear()
        self._ha_line.close()
        control_socket().unlink(missing_ok=True)
        forget()
        self._store.clear()
        self._selector.close()
        self._signals.close()

    # --- children -----------------------------------------------------------

    def _start(self, name: str) -> None:
        if self.may_start() and self._ranks.start(name):
            self.keep()

    def may_start(self) -> bool:
        return self._state in (State.STARTING, State.RUNNING)

    def _fork(self, name: str, seat: int, *, beside: bool = False) -> Child | None:
        body: Body = self._bodies.body(name, seat, beside=beside)
        try:
            child = start_child(name, self._bodies.index(name), body, self._forget, time.monotonic(), seat)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise
            self._restart_later(name, f"{name} cannot be started ({error.strerror})", was_ready=False)
            return None
        self._register(child)
        return child

    def _register(self, child: Child) -> None:
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_death(child))
        if child.connected:
            self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._on_readable(child))

    def _forget(self) -> None:
        """In a new child: close what is the supervisor's alone, and its siblings' channels."""
        self._selector.close()
        for part in (self._signals, self._switch, self._upgrade, self._ha_line):
            part.forget()
        self._assets.forget_locks()
        for child in self._ranks.everybody():
            child.channel.close()
            os.close(child.pidfd)

    def _on_death(self, child: Child) -> None:
        if child not in self._ranks.everybody():
            return
        self._on_readable(child)  # its last words
        self._disconnect(child)
        self._selector.unregister(child.pidfd)
        status = child.reap()
        text = f"{child.name} (pid {child.pid}) {describe_status(status)}"
        self._repair(child)
        is_other = self._ranks.remove(child)
        self._switch.on_death(child)
        if is_other:
            if status:
                self.complain(text)
            self._relief.on_death(child, text)
            self._succession.on_death(child)
            self._look_at_upgrade()
        if self._state in (State.STOPPING, State.LEAVING):
            self._go_on_stopping()
        elif is_other:
            pass
        elif child.is_leaving:
            self._start(child.name)
        elif self._state is State.STARTING and not child.ready and child.name in self._bodies.awaited_names:
            self.complain(f"{text} before it was ready")
            self._stop(1)
        else:
            self._restart_later(child.name, text, was_ready=child.ready)
        self.keep()

    def _restart_later(self, name: str, text: str, *, was_ready: bool) -> None:
        now = time.monotonic()
        delay = self._backoffs[name].delay(now, was_ready=was_ready)
        if delay:
            self._timers.at(now + delay, lambda: self._start(name))
            self.complain(f"{text}; it is started again in {delay:g} s")
        else:
            self._start(name)
            child = self._ranks.named.get(name)
            self.complain(f"{text}; replaced" + (f" by pid {child.pid}" if child else ""))

    def _repair(self, child: Child) -> None:
        """Give back what a dead process held; its replacement must not be forked before."""
        try:
            lost = self._bodies.repair(child)
        except Exception:
            # Shared memory is in doubt, but a supervisor that ends here helps nobody.
            traceback.print_exc()
            return
        if child.seat >= 0:
            self._reckoning.begin(child.seat)
        if lost:
            self.note(f"{child.name} (pid {child.pid}) had {lost} connections; they are closed")

    def keep(self) -> None:
        """For the next supervisor, should this one be killed."""
        try:
            orphans.remember(self._assets.children_record, [(it.name, it.pid) for it in self._ranks.everybody()])
            keep(self.estate())
            self._store.sync(self._assets)
        except OSError as error:
            self.complain(f"cannot write {error.filename}: {error.strerror}")

    # --- messages -----------------------------------------------------------

    def _on_readable(self, child: Child) -> None:
        while child.connected:
            try:
                received = child.channel.receive_fds_now()
            except BlockingIOError:
                return
            except ChannelError as error:
                self.complain(f"{child.name} (pid {child.pid}) sent something unreadable: {error}")
                continue
            if received is None:
                self._disconnect(child)
                continue
            message, fds = received
            try:
                self._on_message(child, message, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _disconnect(self, child: Child) -> None:
        if child.connected:
            child.connected = False
            self._selector.unregister(child.channel)

    def _on_message(self, child: Child, message: Message, fds: Sequence[int]) -> None:
        event = message.get("event")
        if event == self._bodies.ready_event(child.name):
            child.ready = True
            if child.index == 0 and "note" in message:
                self.complain(str(message["note"]))
            if child.name == "control":
                self._news.flush()
            elif child.name == "health" and not child.is_leaving:
                self._switch.on_verdicts()
            self._relief.on_ready(child)
            self._succession.on_ready(child)
            self._look_at_upgrade()
            self._check_ready()
        elif event in ("health", "process"):
            self._news.tell(message)
        elif event == "switched":
            self._switch.on_switched(child)
        elif self._ha_line.hears(child, message, fds):
            self._start(HA)  # unless it runs
        elif child.name == "control" and "do" in message and self._state in (State.STARTING, State.RUNNING):
            self._desk.hear(message, fds)

    def _check_ready(self) -> None:
        ready = all(self._is_ready(name) for name in self._bodies.awaited_names)
        if self._state is not State.STARTING or not ready:
            return
        self._state = State.RUNNING
        self._say_ready()

    def _say_ready(self) -> None:
        systemd.tell("READY=1")
        workers, listeners = self._assets.workers, len(self._assets.listeners)
        try:
            print(f"READY lbfast {__version__} pid {os.getpid()} workers {workers} listeners {listeners}", flush=True)
        except OSError:
            pass  # whoever waited for it is gone

    def _check_started(self) -> None:
        late = [name for name in self._bodies.started_names if not self._is_ready(name)]
        if self._state is State.STARTING and late:
            self.complain(f"not ready within {START_WITHIN:g} s: {', '.join(late)}")
            self._stop(1)

    def _is_ready(self, name: str) -> bool:
        child = self._ranks.named.get(name)
        return child is not None and child.ready

    # --- what a commit and a relief need ------------------------------------

    def start_missing(self) -> None:
        for place in self._ranks.places:
            self._start(self._bodies.worker_name(place))

    def is_steady(self) -> bool:
        """Nobody is being replaced."""
        return not self._relief.is_busy and not self._succession.is_busy and self._inherit is None

    # --- what an upgrade needs ------------------------------------------------

    def is_quiet(self) -> bool:
        everybody = self._ranks.everybody()
        is_complete = len(everybody) == len(self._bodies.names) and all(it.is_settled for it in everybody)
        return is_complete and self.is_steady() and not self._switch.is_busy and self._post.is_idle

    def estate(self) -> Estate:
        return describe(self._assets, self._ranks.everybody(), list(self._news.waiting))

    def execute(self, number: int) -> str:
        if self._state is not State.RUNNING:
            return "lbfast is being stopped"
        estate = self.estate()
        estate.facts["number"] = number
        error = execute(estate, _SIGNALS)
        os.close(estate.fds["running"])
        return f"the new program cannot be executed: {error.strerror}"

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, action)

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def control(self) -> Child | None:
        return self._ranks.named.get("control")

    def replace_health(self) -> None:
        """Its successor takes the standing verdicts over, and what is configured now."""
        self.replace("health")

    def replace(self, name: str) -> None:
        """Somebody who is no worker: it ends, then another one is started."""
        child = self._ranks.named.get(name)
        if child is not None and not child.is_leaving:
            child.is_leaving = True
            self.stop(child)

    def stop(self, child: Child) -> None:
        """Whatever is on its way to it comes first."""
        self._post.send(child, {"do": "stop"})

    def succeed_control(self, last_words: Callable[[], None]) -> None:
        self._succession.begin(last_words)

    def tell_control(self, message: Message) -> None:
        control = self.control()
        if control is not None:
            self._post.send(control, message)

    def replace_web(self) -> None:
        """Start it, or have a successor take over what is configured now; clients' connections notice nothing."""
        web = self._ranks.named.get(WEB)
        if web is None:
            self._start(WEB)
            return
        self.replace(WEB)
        self.later(LEAVE_WITHIN, lambda: web.kill(signal.SIGKILL) if self._ranks.named.get(WEB) is web else None)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.at(time.monotonic() + seconds, action)

    def _announce(self) -> None:
        for failure in self._assets.addresses.announce() if self.may_start() else ():
            self.note(failure)

    # --- the end ------------------------------------------------------------

    def _on_signals(self) -> None:
        for number in self._signals.read():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._on_stop_signal()
            elif number == signal.SIGHUP and sys.stdin is not None and is_terminal():
                self._on_stop_signal()  # the terminal was closed
            elif number == signal.SIGHUP:
                self._commit_file()
            elif number == signal.SIGUSR2:
                self._upgrade.begin(0)
            else:
                name = signal.Signals(number).name
                self.complain(f"{name} ignored: it has no meaning in this version")

    def _commit_file(self, *, only_news: bool = False) -> None:
        """Control reads the file that was given at start, and commits it; it need not have the right to open it."""
        control = self.control()
        fds = open_to_read(self._assets.config_path)
        message = {"do": "commit", "only_news": only_news}
        try:
            if control is None or not control.ready or not control.channel.send_now(message, fds):
                self.complain("SIGHUP ignored: the control process is not there to commit the configuration; try again")
        finally:
            for fd in fds:
                os.close(fd)

    def _on_stop_signal(self) -> None:
        if self._state in (State.STOPPING, State.LEAVING):
            self._kill_all()
        else:
            self._stop(0)

    def _stop(self, code: int) -> None:
        """Begin to stop: workers first, because control logs how their connections ended."""
        self._code = code
        self._state = State.STOPPING
        systemd.tell("STOPPING=1")
        now = time.monotonic()
        self._ha_line.release()
        for child in self.workers():
            self._tell(child, "stop")
        self._timers.at(now + STOP_GRACE, self._cut)
        self._timers.at(now + STOP_GRACE + CUT_WITHIN, lambda: self._kill_late(self.workers()))
        self._go_on_stopping()

    def _cut(self) -> None:
        for child in self.workers():
            self._tell(child, "cut")

    def _go_on_stopping(self) -> None:
        if self._state is State.STOPPING and not self.workers():
            self._leave()
        if self._state is State.LEAVING and not self._ranks.everybody():
            self._state = State.GONE

    def _leave(self) -> None:
        """The workers are gone: nothing needs the sockets and addresses any more."""
        self._state = State.LEAVING
        close_listeners(self._assets.listeners, for_good=True)
        self._assets.listeners.clear()
        for failure in self._assets.addresses.drop_all():
            self.complain(failure)
        for child in self._ranks.everybody():
            self._tell(child, "stop")
        self._timers.at(time.monotonic() + LEAVE_WITHIN, lambda: self._kill_late(self._ranks.everybody()))

    def _tell(self, child: Child, what: str) -> None:
        if not child.channel.send_now({"do": what}):
            child.kill(signal.SIGTERM)

    def _kill_late(self, children: Sequence[Child]) -> None:
        for child in children:
            self.complain(f"{child.name} (pid {child.pid}) does not stop; killed")
            self._code = self._code or 1
            child.kill(signal.SIGKILL)

    def _kill_all(self) -> None:
        """A second signal: at once."""
        for child in self._ranks.everybody():
            child.kill(signal.SIGKILL)
