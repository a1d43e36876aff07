"""Forks a child, and lets it begin with nothing of the supervisor's but what it needs."""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lbfast.supervisor.channel import Channel

Body = Callable[[Channel], int]

_RESET = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
_NAME_LENGTH = 15  # the kernel cuts what is longer


@dataclass
class Child:
    """A running child, as the supervisor sees it."""

    name: str  # "worker 0", "control", "health"
    index: int  # place of a worker, else -1
    pid: int
    pidfd: int
    channel: Channel
    started_at: float
    seat: int = -1  # of a worker, in shared memory
    ready: bool = False
    connected: bool = True  # its channel is open
    is_leaving: bool = False  # it was asked to make room for its replacement

    @property
    def is_settled(self) -> bool:
        """It serves, and stays."""
        return self.ready and not self.is_leaving

    def kill(self, number: int) -> None:
        """Send a signal; harmless when it is gone."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def reap(self) -> int:
        """Collect its wait status; to be called once, when the pidfd is readable or after SIGKILL."""
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            status = 0  # another supervisor's child, adopted: nobody can say how it ended
        os.close(self.pidfd)
        self.channel.close()
        return status


def start_child(name: str, index: int, body: Body, forget: Callable[[], None], now: float, seat: int = -1) -> Child:
    """Fork.  The child calls ``forget`` to close what is the supervisor's alone, then ``body``, then exits."""
    ours, theirs = Channel.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between fork and reset would run the supervisor's handler in the child, and write into the
    # supervisor's own wake-up pipe: it has to wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(name, body, theirs, [ours.close, forget])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return Child(name, index, pid, os.pidfd_open(pid), ours, now, seat)


def describe_status(status: int) -> str:
    """``was killed by SIGKILL`` or ``ended with exit status 1``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by {signal.Signals(number).name}"
    return f"ended with exit status {os.waitstatus_to_exitcode(status)}"


def set_process_name(name: str) -> None:
    """The name that ps and top show for this process."""
    if len(name) > _NAME_LENGTH:
        name = name.replace("worker", "w")
    Path("/proc/self/comm").write_text(name[:_NAME_LENGTH])


def _be_child(name: str, body: Body, channel: Channel, forget: list[Callable[[], None]]) -> NoReturn:
    """The whole life of a child; it ends here, never in the stack of the supervisor."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C reaches the whole process group: the supervisor decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for close in forget:
            close()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        random.seed()
        set_process_name("lbfast-" + name.replace(" ", ""))
        code = body(channel)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more
