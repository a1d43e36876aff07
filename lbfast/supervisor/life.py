"""The supervisor's loop: signals, deaths and messages of children, deadlines; nothing else."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from lbfast import __version__
from lbfast.config.paths import control_socket
from lbfast.supervisor import orphans
from lbfast.supervisor.addresses import AddressFaults
from lbfast.supervisor.backoff import Backoff
from lbfast.supervisor.bodies import HA, Bodies
from lbfast.supervisor.channel import ChannelError, Message
from lbfast.supervisor.children import Body, Child, describe_status, start_child
from lbfast.supervisor.ha_body import HaLine
from lbfast.supervisor.listeners import close_listeners
from lbfast.supervisor.start import Assets
from lbfast.supervisor.switch import Switch, wanted_addresses
from lbfast.supervisor.timers import Timers
from lbfast.supervisor.wakeup import SignalPipe
from lbfast.supervisor.worker import STOP_GRACE

START_WITHIN = 60.0  # workers and control; first verdicts take as long as the health checks say
CUT_WITHIN = 3.0  # from the cut to the end of the workers
LEAVE_WITHIN = 5.0  # control writes the last events to the log
ANNOUNCE_AGAIN = (1.0, 5.0)  # an announcement can be lost, or come while a switch is still learning
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_MOST_EVENTS = 256  # kept while control is away


class State(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()  # workers end
    LEAVING = auto()  # control and health end
    GONE = auto()


class Supervisor:
    """One run from the first fork to the last reaped child."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._bodies = Bodies(assets)
        self._signals = SignalPipe(_SIGNALS)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
        self._timers = Timers()
        self._children: dict[str, Child] = {}
        self._switch = Switch(assets, self)
        self._ha_line = HaLine(self.later)
        self._backoffs = {name: Backoff() for name in (*self._bodies.names, HA)}
        self._events: deque[Message] = deque(maxlen=_MOST_EVENTS)
        self._is_flush_due = False
        self._state = State.STARTING
        self._code = 0

    def run(self) -> int:
        """Start everything, supervise until stopped; the exit code."""
        for note in self._assets.notes:
            self._note(note)
        for name in self._bodies.names:
            self._start(name)
        now = time.monotonic()
        self._timers.at(now + START_WITHIN, self._check_started)
        for delay in ANNOUNCE_AGAIN if self._assets.addresses.raised else ():
            self._timers.at(now + delay, self._announce)
        while self._state is not State.GONE:
            for key, _ in self._selector.select(self._timers.timeout(time.monotonic())):
                key.data()
            self._timers.run_due(time.monotonic())
        return self._code

    def close(self) -> None:
        """Leave no child, whatever happened."""
        for child in self._children.values():
            child.kill(signal.SIGKILL)
            child.reap()
        self._children.clear()
        self._ha_line.close()
        control_socket().unlink(missing_ok=True)
        self._selector.close()
        self._signals.close()

    # --- children -----------------------------------------------------------

    def _start(self, name: str) -> None:
        if self._state not in (State.STARTING, State.RUNNING) or name in self._children:
            return
        body: Body = self._bodies.body(name)
        try:
            child = start_child(name, self._bodies.index(name), body, self._forget, time.monotonic())
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise
            self._restart_later(name, f"{name} cannot be started ({error.strerror})", was_ready=False)
            return
        self._children[name] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_death(child))
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._on_readable(child))
        self._remember()

    def _forget(self) -> None:
        """In a new child: close what is the supervisor's alone, and its siblings' channels."""
        self._selector.close()
        self._signals.forget()
        self._switch.forget()
        self._assets.forget_locks()
        for child in self._children.values():
            child.channel.close()
            os.close(child.pidfd)

    def _on_death(self, child: Child) -> None:
        if self._children.get(child.name) is not child:
            return
        self._on_readable(child)  # its last words
        self._disconnect(child)
        self._selector.unregister(child.pidfd)
        del self._children[child.name]
        text = f"{child.name} (pid {child.pid}) {describe_status(child.reap())}"
        self._repair(child)
        self._switch.on_death(child)
        if self._state in (State.STOPPING, State.LEAVING):
            self._go_on_stopping()
        elif child.is_leaving:
            self._start(child.name)
        elif self._state is State.STARTING and not child.ready:
            self._complain(f"{text} before it was ready")
            self._stop(1)
        else:
            self._restart_later(child.name, text, was_ready=child.ready)
        self._remember()

    def _restart_later(self, name: str, text: str, *, was_ready: bool) -> None:
        now = time.monotonic()
        delay = self._backoffs[name].delay(now, was_ready=was_ready)
        if delay:
            self._timers.at(now + delay, lambda: self._start(name))
            self._complain(f"{text}; it is started again in {delay:g} s")
        else:
            self._start(name)
            child = self._children.get(name)
            self._complain(f"{text}; replaced" + (f" by pid {child.pid}" if child else ""))

    def _repair(self, child: Child) -> None:
        """Give back what a dead process held; its replacement must not be forked before."""
        try:
            lost = self._bodies.repair(child)
        except Exception:
            # Shared memory is in doubt, but a supervisor that ends here helps nobody.
            traceback.print_exc()
            return
        if lost:
            self._note(f"{child.name} (pid {child.pid}) had {lost} connections; they are closed")

    def _remember(self) -> None:
        try:
            orphans.remember(self._assets.children_record, [(it.name, it.pid) for it in self._children.values()])
        except OSError as error:
            self._complain(f"cannot write {self._assets.children_record}: {error.strerror}")

    # --- messages -----------------------------------------------------------

    def _on_readable(self, child: Child) -> None:
        while child.connected:
            try:
                received = child.channel.receive_fds_now()
            except BlockingIOError:
                return
            except ChannelError as error:
                self._complain(f"{child.name} (pid {child.pid}) sent something unreadable: {error}")
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
            if child.name == "control":
                self._flush_events()
            elif child.name == "health" and not child.is_leaving:
                self._switch.on_verdicts()
            self._check_ready()
        elif event in ("health", "process"):
            self._tell_control(message)
        elif child.name == HA and event == "pair":
            self._on_pair(message)
        elif event == "switched":
            self._switch.on_switched(child)
        elif child.name == "control" and message.get("do") == "start_ha":
            self.start_ha()
        elif child.name == "control" and "do" in message and self._state in (State.STARTING, State.RUNNING):
            self._switch.hear(message, fds)

    def _check_ready(self) -> None:
        ready = len(self._children) == len(self._bodies.names) and all(it.ready for it in self._children.values())
        if self._state is not State.STARTING or not ready:
            return
        self._state = State.RUNNING
        workers, listeners = self._assets.workers, len(self._assets.listeners)
        try:
            print(f"READY lbfast {__version__} pid {os.getpid()} workers {workers} listeners {listeners}", flush=True)
        except OSError:
            pass  # whoever waited for it is gone

    def _check_started(self) -> None:
        late = [name for name in self._bodies.started_names if not self._is_ready(name)]
        if self._state is State.STARTING and late:
            self._complain(f"not ready within {START_WITHIN:g} s: {', '.join(late)}")
            self._stop(1)

    def _is_ready(self, name: str) -> bool:
        child = self._children.get(name)
        return child is not None and child.ready

    def _note(self, text: str) -> None:
        """An event for operators; kept while control is away."""
        self._tell_control({"event": "process", "message": text})

    # --- what a commit needs ------------------------------------------------

    def workers(self) -> list[Child]:
        return [child for child in self._children.values() if child.index >= 0]

    def control(self) -> Child | None:
        return self._children.get("control")

    def replace_health(self) -> None:
        """Its successor takes the standing verdicts over, and what is configured now."""
        health = self._children.get("health")
        if health is not None and not health.is_leaving:
            health.is_leaving = True
            self._tell(health, "stop")

    def tell_ha(self) -> None:
        """A commit stands: other addresses, other tables."""
        child, assets = self._children.get(HA), self._assets
        if child is not None:
            self._ha_line.tell_plan(child, assets.config, assets.layout, assets.version, assets.shared)

    def _on_pair(self, message: Message) -> None:
        """The ha process has a pair now, or has none any more."""
        addresses, config = self._assets.addresses, self._assets.config
        if message.get("paired") and not addresses.is_paired:
            addresses.hand_over()
        elif not message.get("paired") and addresses.is_paired:
            try:
                addresses.take_back(wanted_addresses(config), hold=message.get("active") is True)
            except AddressFaults as error:
                self._complain(f"the service addresses cannot be kept: {error}")

    def start_ha(self) -> None:
        """A pair is to be made: the ha process answers on ha.sock when it is there."""
        self._bodies.want_ha()
        self._start(HA)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.at(time.monotonic() + seconds, action)

    def complain(self, text: str) -> None:
        self._complain(text)

    def _complain(self, text: str) -> None:
        """An event that also deserves a line on stderr."""
        try:
            print(f"lbfast: {text}", file=sys.stderr, flush=True)
        except OSError:
            pass
        self._note(text)

    def _tell_control(self, message: Message) -> None:
        self._events.append(message)
        self._flush_events()

    def _flush_events(self) -> None:
        control = self._children.get("control")
        while self._events and control and control.ready and control.connected:
            if not control.channel.send_now(self._events[0]):
                self._flush_later()
                return
            self._events.popleft()

    def _flush_later(self) -> None:
        """Control does not keep up with its channel: try again soon, in one timer only."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._timers.at(time.monotonic() + 0.1, self._flush_again)

    def _flush_again(self) -> None:
        self._is_flush_due = False
        self._flush_events()

    def _announce(self) -> None:
        if self._state in (State.STARTING, State.RUNNING):
            for failure in self._assets.addresses.announce():
                self._note(failure)

    # --- the end ------------------------------------------------------------

    def _on_signals(self) -> None:
        for number in self._signals.read():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._on_stop_signal()
            elif number == signal.SIGHUP and sys.stdin is not None and _is_terminal():
                self._on_stop_signal()  # the terminal was closed
            elif number == signal.SIGHUP:
                self._commit_file()
            else:
                name = signal.Signals(number).name
                self._complain(f"{name} ignored: it has no meaning in this version")

    def _commit_file(self) -> None:
        """Control reads the file that was given at start, and commits it."""
        control = self.control()
        if control is None or not control.ready or not control.channel.send_now({"do": "commit"}):
            self._complain("SIGHUP ignored: the control process is not there to commit the configuration; try again")

    def _on_stop_signal(self) -> None:
        if self._state in (State.STOPPING, State.LEAVING):
            self._kill_all()
        else:
            self._stop(0)

    def _stop(self, code: int) -> None:
        """Begin to stop: workers first, because control logs how their connections ended."""
        self._code = code
        self._state = State.STOPPING
        now = time.monotonic()
        if (ha := self._children.get(HA)) is not None:
            self._tell(ha, "release")  # first: the peer's clients should not wait for ours to end
        self._each_worker(lambda child: self._tell(child, "stop"))
        self._timers.at(now + STOP_GRACE, lambda: self._each_worker(lambda child: self._tell(child, "cut")))
        self._timers.at(now + STOP_GRACE + CUT_WITHIN, lambda: self._each_worker(self._kill_late))
        self._go_on_stopping()

    def _go_on_stopping(self) -> None:
        if self._state is State.STOPPING and not self.workers():
            self._leave()
        if self._state is State.LEAVING and not self._children:
            self._state = State.GONE

    def _leave(self) -> None:
        """The workers are gone: nothing needs the sockets and addresses any more."""
        self._state = State.LEAVING
        close_listeners(self._assets.listeners)
        self._assets.listeners.clear()
        for failure in self._assets.addresses.drop_all():
            self._complain(failure)
        for child in self._children.values():
            self._tell(child, "stop")
        self._timers.at(time.monotonic() + LEAVE_WITHIN, self._kill_late_all)

    def _tell(self, child: Child, what: str) -> None:
        if not child.channel.send_now({"do": what}):
            child.kill(signal.SIGTERM)

    def _each_worker(self, action: Callable[[Child], None]) -> None:
        for child in self.workers():
            action(child)

    def _kill_late(self, child: Child) -> None:
        self._complain(f"{child.name} (pid {child.pid}) does not stop; killed")
        self._code = self._code or 1
        child.kill(signal.SIGKILL)

    def _kill_late_all(self) -> None:
        for child in self._children.values():
            self._kill_late(child)

    def _kill_all(self) -> None:
        """A second signal: at once."""
        for child in self._children.values():
            child.kill(signal.SIGKILL)


def _is_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except ValueError:
        return False  # closed
