"""The control process: puts the parts together, runs them on one asyncio loop, and ends them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from lbfast import __version__
from lbfast._conn import Slab
from lbfast._ring import Ring
from lbfast._stick import StickTable
from lbfast.config.first import why_no_news
from lbfast.config.publish import Placed
from lbfast.config.versions import GIVEN
from lbfast.control import protocol
from lbfast.control.access import Access
from lbfast.control.admin import AdminBook
from lbfast.control.catalog import Catalog, catalog_of
from lbfast.control.client_limits import ClientLimits, reported_limits
from lbfast.control.commits import Commits, commit_file
from lbfast.control.engine import About, Engine, SharedFace, local_clock
from lbfast.control.events import EventStream, RingDrain
from lbfast.control.face import make_face
from lbfast.control.kept_log import KeptLog, Tee
from lbfast.control.line import SupervisorLine
from lbfast.control.log import LogWriter
from lbfast.control.log_targets import open_target
from lbfast.control.pace import Pace
from lbfast.control.pair import PairLine
from lbfast.control.probe_now import ProbeDesk
from lbfast.control.protocol import ControlError
from lbfast.control.rate_limit import RateLimit
from lbfast.control.server import ControlServer
from lbfast.control.socket_file import SocketFile
from lbfast.control.statefile import NAME, MarksFile
from lbfast.control.sweep import sweep_once

if TYPE_CHECKING:
    from lbfast.config.layout import Layout
    from lbfast.model.appliance import Config

SWEEP_S: Final = 1.0
EXIT_OK: Final = 0
EXIT_USAGE: Final = 2


class ChannelFace(Protocol):
    """The child's end of the channel to the supervisor (``supervisor/channel.py``)."""

    def fileno(self) -> int: ...
    def send(self, message: Mapping[str, object], fds: Sequence[int] = (), /) -> None: ...
    def receive_fds(self) -> tuple[dict[str, Any], list[int]] | None: ...


def run_control(
    config_path: Path | str,
    config: Config,
    layout: Layout,
    shared: SharedFace,
    channel: ChannelFace,
    version: int = 0,
    access: Access | None = None,
    confine: Callable[[], None] | None = None,
    *,
    beside: bool = False,
) -> int:
    """The whole life of the control process; its exit status.

    ``beside``: a predecessor still runs.  Its socket's name is taken over at once; rings are drained and
    tables swept only from ``{"do": "begin"}`` on.

    Called in the forked child.  Ends on ``{"do": "stop"}`` or SIGTERM; goes on
    serving when the supervisor is gone.  ``confine`` gives up this process's rights, once it has its socket;
    ``access`` says who may use that, by default this process's user and root.
    """
    try:
        access = access or Access(frozenset({os.geteuid()}))
        gid = access.group.gid if access.group else -1
        file = SocketFile(protocol.socket_path(), access.mode, gid, access.owner)
        file.open(take_over=beside)
        if confine is not None:
            confine()
        server = (file, access)
        process = ControlProcess(config_path, config, layout, shared, channel, version, server, beside)
        return asyncio.run(process.run())
    except (OSError, ValueError) as error:
        print(f"lbfast control: cannot start: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE


class ControlProcess:
    """All parts of a running control process."""

    def __init__(
        self,
        config_path: Path | str,
        config: Config,
        layout: Layout,
        shared: SharedFace,
        channel: ChannelFace,
        version: int,
        server: tuple[SocketFile, Access],
        beside: bool = False,
    ) -> None:
        self._file, self._access = server
        self._beside = beside
        self._channel = channel
        self._shared = shared
        self._config = config
        self._layout = layout
        self._version = version
        self._catalog = catalog_of(config, layout)
        self._clock = local_clock()
        self._tasks: list[asyncio.Task[None]] = []
        self._about = About(__version__, os.getppid(), self._clock.now_iso(), os.fspath(config_path))

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        settings = self._config.log
        self._kept_log = KeptLog(protocol.state_dir())
        log = LogWriter(
            Tee(open_target(settings.target, settings.file), self._kept_log),
            lambda message: _from_thread(loop, lambda: self._engine.announce(message, "process")),
        )
        try:
            self._build(loop, log)
            await self._serve(loop, stopping, log)
        finally:
            log.close()
        return EXIT_OK

    def _build(self, loop: asyncio.AbstractEventLoop, log: LogWriter) -> None:
        """The engine: the kept admin state is applied here, before anybody can ask."""
        settings = self._config.log
        limit = RateLimit(settings.rate_limit, settings.rate_interval / 1000)
        events = EventStream(log, limit, loop.time, self._clock.now_iso, is_logging=settings.target != "none")
        kept = MarksFile(protocol.state_dir() / NAME, self._clock.wall)
        book = AdminBook(kept, self._shared, self._clock, loop)
        self._engine = Engine(self._catalog, self._shared, book, events, self._clock, self._about)
        book.announce = lambda service, real, message: self._engine.announce(message, service=service, real=real)
        if kept.trouble:
            self._engine.announce(kept.trouble)
            print(f"lbfast control: {kept.trouble}", file=sys.stderr, flush=True)
        book.restore(self._catalog)
        self._log = log
        self._line = SupervisorLine(self._channel, StickTable.attach)
        running = Placed(self._config, self._layout)
        self._commits = Commits(
            self._engine, running, self._version, self._line, protocol.state_dir(), self._on_swapped
        )
        self._engine.commits = self._commits
        self._engine.entries_changed = self._shared.journal.mark_desync
        self._engine.pair = PairLine(protocol.runtime_dir(), protocol.state_dir(), self._line.start_ha)
        self._engine.line = self._line
        self._face = make_face(
            self._engine, self._commits, self._config, protocol.state_dir(), self._kept_log, ProbeDesk()
        )

    async def _serve(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event, log: LogWriter) -> None:
        server = ControlServer(self._engine, self._file, self._access)
        await server.start()
        self._begun = asyncio.Event()
        if not self._beside:
            self._begun.set()
        drain = RingDrain(self._shared.rings, lambda: self._engine.catalog, self._engine.events)
        self._limits = limits = ClientLimits(self._engine, reported_limits(self._config))
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, log.reopen)
        loop.add_reader(self._channel.fileno(), self._hear, loop, stopping)
        events = self._engine.events
        look = lambda: drain.turn(self._clock.now_iso())  # noqa: E731
        pace = Pace(look, drain.rest, lambda: events.followers > 0, self._report_bug)
        tasks = [
            asyncio.create_task(self._look_into_rings(pace)),
            asyncio.create_task(self._every(SWEEP_S, [lambda: sweep_once(self._engine), limits.turn])),
        ]
        try:
            self._commits.start()
            self._face.start()
            self._tell_ready()
            await stopping.wait()
        finally:
            pace.stop()
            tasks += self._tasks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._face.stop()
            await self._commits.stop()
            await server.stop()
            self._engine.book.close()
            if self._begun.is_set():
                drain.turn(self._clock.now_iso())  # the last records of the workers

    async def _every(self, seconds: float, works: Sequence[Callable[[], object]]) -> None:
        await self._begun.wait()
        await _every(seconds, works, self._report_bug)

    async def _look_into_rings(self, pace: Pace) -> None:
        """Not before it is our turn: a ring has one reader."""
        await self._begun.wait()
        self._engine.events.asked = pace.hurry
        pace.start(self._shared.ring_wake)

    def _tell_ready(self) -> None:
        try:
            self._channel.send({"event": "ready"})
        except OSError:
            pass  # the supervisor is gone; the socket answers all the same

    def _hear(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        """One message of the supervisor.  It being gone is no reason to end: the workers go on too."""
        try:
            received = self._channel.receive_fds()
        except OSError:
            received = None
        except Exception as error:  # a message that cannot be read is not worth the operator's socket
            self._engine.announce(f"a message of the supervisor could not be read: {error}", "process")
            return
        if received is None:
            loop.remove_reader(self._channel.fileno())
            self._line.lost()
            self._engine.announce("the supervisor is gone; traffic and the control socket go on", "process")
            return
        message, fds = received
        if self._line.hear(message, fds):
            return
        if message.get("event") == "seat":
            self._meet(fds)
        elif message.get("do") == "stop":
            stopping.set()
        elif message.get("do") == "begin":
            self._begun.set()
        elif message.get("do") == "commit":
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(loop.create_task(self._commit_file(*fds, only_news=bool(message.get("only_news")))))
        elif message.get("event") in ("health", "process"):
            record = forwarded_record(message, self._engine.catalog, self._clock.now_iso())
            self._engine.events.publish(record)

    def _meet(self, fds: Sequence[int]) -> None:
        """A seat for one more worker: its connections and its events."""
        shared: Any = self._shared
        shared.slabs.append(Slab.attach(fds[0]))
        shared.rings.append(Ring.attach(fds[1]))
        for fd in fds:
            os.close(fd)  # attach has its own

    async def _commit_file(self, fd: int | None = None, *, only_news: bool = False) -> None:
        """The file that was given at start, opened by the supervisor.

        ``only_news``: nobody asked for it by SIGHUP, workers were taken over from a killed supervisor.  What was
        committed meanwhile goes on, unless the file has been edited, as after any other start.
        """
        what = f"{self._about.config}, {GIVEN}," if only_news else f"SIGHUP: {self._about.config}"
        try:
            wish = commit_file(self._about.config, fd)
            if only_news:
                store, runs = self._commits.store, self._commits.version
                if as_before := why_no_news(store, wish.file, wish.text, runs):
                    if store.text(runs) != wish.text:
                        self._engine.announce(as_before)
                    return
                wish = replace(wish, by="lbfast", reason=GIVEN)
            report = await self._commits.commit(wish)
        except (ControlError, OSError, ValueError) as error:
            text = f"{what} was not committed: {error}"
            self._engine.announce(text)
            print(f"lbfast control: {text}", file=sys.stderr, flush=True)
        else:
            if not report["steps"]:
                self._engine.announce(f"{what} differs in nothing from what runs")

    def _on_swapped(self, config: Config) -> None:
        """A commit stands: what follows the configuration beside the catalog."""
        before, self._config = self._config, config
        self._limits.replace(reported_limits(config))
        self._face.replace(config)
        log = config.log
        if (log.target, log.file) != (before.log.target, before.log.file):
            try:
                self._log.switch(Tee(open_target(log.target, log.file), self._kept_log))
                self._engine.events.set_logging(log.target != "none")
            except (OSError, ValueError) as error:
                self._engine.announce(f"the log stays where it is: {error}", "process")
        if (log.rate_limit, log.rate_interval) != (before.log.rate_limit, before.log.rate_interval):
            self._engine.events.set_limit(RateLimit(log.rate_limit, log.rate_interval / 1000))

    def _report_bug(self, error: Exception) -> None:
        self._engine.announce(f"internal error, the work goes on: {type(error).__name__}: {error}", "process")


def forwarded_record(message: Mapping[str, Any], catalog: Catalog, at: str) -> dict[str, Any]:
    """The event of another process, with labels in place of slots."""
    record: dict[str, Any] = {"at": at, "event": message["event"]}
    service, real = message.get("service"), message.get("real")
    if service is not None:
        record["service"] = catalog.service_label(service) if isinstance(service, int) else str(service)
    if real is not None:
        record["real"] = catalog.real_label(real) if isinstance(real, int) else str(real)
    record["message"] = str(message.get("message", ""))
    return record


async def _every(seconds: float, works: Sequence[Callable[[], object]], failed: Callable[[Exception], None]) -> None:
    """Do the works again and again.  A failure is told once per kind in a row and ends nothing."""
    told = [""] * len(works)
    while True:
        for place, work in enumerate(works):
            try:
                work()
                told[place] = ""
            except Exception as error:
                if repr(error) != told[place]:
                    told[place] = repr(error)
                    failed(error)
        await asyncio.sleep(seconds)


def _from_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        pass  # the loop has ended: there is nobody left to tell
