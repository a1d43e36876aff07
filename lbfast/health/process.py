"""The health process: set up signals and the event loop, run the probes until told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Protocol

from lbfast.health.plan import Slots, plan_checks
from lbfast.health.report import HealthTable, Message, Outbox
from lbfast.health.results import ProbeResults
from lbfast.health.runner import Runner
from lbfast.health.spec import CheckedReal
from lbfast.model.appliance import Config

RESEND_S = 0.1


class Channel(Protocol):
    """The part of ``supervisor.channel.Channel`` that is needed here."""

    def fileno(self) -> int: ...
    def send_now(self, message: Message) -> bool:
        """False when the queue is full or the other end is gone."""

    def receive_now(self) -> Message | None:
        """None at end of file; BlockingIOError when there is nothing."""


class SharedHealth(Protocol):
    """The part of ``supervisor.shared.Shared`` that is needed here."""

    @property
    def table(self) -> HealthTable: ...
    @property
    def results(self) -> ProbeResults: ...
    @property
    def health_wake(self) -> int: ...


def run_health(config: Config, layout: Slots, shared: SharedHealth, channel: Channel) -> int:
    """The whole life of the health process, from fork to exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # scripts are waited for by pidfd
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    asyncio.run(serve(plan_checks(config, layout), shared, channel))
    return 0


async def serve(checks: list[CheckedReal], shared: SharedHealth, channel: Channel) -> None:
    """Probe until ``{"do": "stop"}`` or SIGTERM.  Without a supervisor it goes on."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    line = _Line(channel, stop)
    runner = Runner(checks, shared.table, shared.results, shared.health_wake, line.tell)
    line.open()
    runner.start()
    try:
        await stop.wait()
    finally:
        await runner.stop()
        line.close()
        loop.remove_signal_handler(signal.SIGTERM)


class _Line:
    """The channel inside the event loop."""

    def __init__(self, channel: Channel, stop: asyncio.Event) -> None:
        self._channel = channel
        self._stop = stop
        self._outbox = Outbox(channel.send_now)
        self._resend: asyncio.TimerHandle | None = None
        self._is_open = False

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._on_message)
        self._is_open = True

    def tell(self, message: Message) -> None:
        self._outbox.put(message)
        self._flush_later()

    def close(self) -> None:
        if self._resend is not None:
            self._resend.cancel()
        if self._is_open:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._is_open = False
        self._outbox.close()

    def _flush_later(self) -> None:
        if self._resend is None and not self._outbox.flush():
            self._resend = asyncio.get_running_loop().call_later(RESEND_S, self._flush)

    def _flush(self) -> None:
        self._resend = None
        self._flush_later()

    def _on_message(self) -> None:
        try:
            message = self._channel.receive_now()
        except BlockingIOError:
            return
        if message is None:
            self.close()  # the supervisor is gone; the workers go on serving and need verdicts
        elif message.get("do") == "stop":
            self._stop.set()
