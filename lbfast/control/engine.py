"""What the verbs work on: the faces of shared memory as Protocols, the clocks, and the Engine that bundles them.

The Protocols name only what control uses of the compiled modules, so that tests
can stand in small stateful fakes and no file here depends on how memory is laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from lbfast._shm import now_ms

if TYPE_CHECKING:
    from lbfast._conn import ConnRecord
    from lbfast._counters import RealCounters, ServiceCounters, WorkerCounters
    from lbfast._ring import Event
    from lbfast._stick import Entry
    from lbfast._table import RealState, ServiceState
    from lbfast.control.admin import AdminBook
    from lbfast.control.catalog import Catalog, ServiceInfo
    from lbfast.control.commits import Commits
    from lbfast.control.events import EventStream
    from lbfast.control.face import Face
    from lbfast.control.line import SupervisorLine
    from lbfast.control.pair import PairLine


class TableFace(Protocol):
    """Virtual services and real servers (``_table.Table``)."""

    def service(self, slot: int) -> ServiceState: ...
    def real(self, slot: int) -> RealState: ...
    def set_weight(self, real: int, weight: int) -> None: ...
    def set_admin(self, real: int, admin: int) -> None: ...
    def set_drain_expired(self, real: int, expired: bool) -> None: ...
    def set_drain_share(self, real: int, share: int, cut: bool) -> None: ...
    def cut(self, real: int) -> None: ...


class StickFace(Protocol):
    """The stick table of one virtual service (``_stick.StickTable``)."""

    @property
    def capacity(self) -> int: ...
    def get(self, client: str) -> Entry | None: ...
    def pin(self, client: str, real: int, tag: int, now_ms: int) -> None: ...
    def real_tag(self, id: bytes, /) -> int: ...
    def clear(self, network: str | None = None, real: int | None = None) -> int: ...
    def entries(self) -> Iterator[Entry]: ...
    def counts(self) -> dict[int, int]: ...
    def __len__(self) -> int: ...
    def sweep(self, timeout_ms: int, now_ms: int, buckets: int) -> int: ...


class SlabFace(Protocol):
    """The live connections of one worker (``_conn.Slab``)."""

    def connections(self, service: int | None = None, client: str | None = None) -> Iterator[ConnRecord]: ...


class CountersFace(Protocol):
    """A page of counters per worker (``_counters.Counters``)."""

    @property
    def workers(self) -> int: ...
    def worker(self, index: int) -> WorkerCounters: ...
    def service(self, slot: int) -> ServiceCounters: ...
    def real(self, slot: int) -> RealCounters: ...
    def service_by_worker(self, slot: int) -> list[int]: ...


class RingFace(Protocol):
    """The event ring of one worker (``_ring.Ring``)."""

    @property
    def lost(self) -> int: ...
    def read(self, limit: int) -> list[Event]: ...
    def skip(self, keep: int) -> int: ...
    def rest(self, asleep: bool, /) -> None: ...
    def __len__(self) -> int: ...


class ResultsFace(Protocol):
    """The last probe results of each real server (``lbfast.health.results.ProbeResults``)."""

    def last(self, real: int) -> Sequence[Any]: ...
    def note(self, real: int) -> Any: ...


class JournalFace(Protocol):
    """What the peer is to be told of the stick tables (``_journal.Journal``)."""

    def mark_desync(self) -> None: ...


class SharedFace(Protocol):
    """The bundle every child inherits (``supervisor/shared.py``)."""

    @property
    def table(self) -> TableFace: ...
    @property
    def counters(self) -> CountersFace: ...
    @property
    def sticks(self) -> Mapping[int, StickFace]: ...
    @property
    def slabs(self) -> Sequence[SlabFace]: ...
    @property
    def rings(self) -> Sequence[RingFace]: ...
    @property
    def results(self) -> ResultsFace: ...
    @property
    def journal(self) -> JournalFace: ...
    @property
    def ring_wake(self) -> int: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an asyncio loop that the drain deadlines need."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


@dataclass(frozen=True)
class Clock:
    """The two clocks: boot-time milliseconds for durations, the wall clock only to show and to keep times."""

    now_ms: Callable[[], int]
    wall: Callable[[], datetime]  # aware, in the local zone

    def at(self, ms: int) -> datetime:
        """The wall-clock time of a moment in shared memory."""
        return self.wall() - timedelta(milliseconds=self.now_ms() - ms)

    def iso(self, ms: int) -> str:
        return self.at(ms).isoformat(timespec="milliseconds")

    def now_iso(self) -> str:
        return self.wall().isoformat(timespec="milliseconds")


def local_clock() -> Clock:
    """The clocks of this machine."""
    return Clock(now_ms=now_ms, wall=lambda: datetime.now(UTC).astimezone())


def persistence_table(shared: SharedFace, service: ServiceInfo) -> StickFace | None:
    """The stick table that keeps a service's clients; None when its table, if any, only counts connections."""
    return shared.sticks.get(service.slot) if service.is_persistent else None


@dataclass(frozen=True)
class Caller:
    """Who asked: the credentials of the process at the other end of the control socket."""

    pid: int
    uid: int
    user: str
    gids: frozenset[int] = frozenset()  # its group and its supplementary groups


@dataclass(frozen=True)
class About:
    """What ``version`` says of this running lbfast."""

    version: str
    pid: int  # of the supervisor
    started: str
    config: str


@dataclass
class Engine:
    """Everything a verb may touch.  ``catalog`` is replaced as a whole when the configuration changes."""

    catalog: Catalog
    shared: SharedFace
    book: AdminBook
    events: EventStream
    clock: Clock
    about: About
    pair: PairLine | None = None
    entries_changed: Callable[[], None] = lambda: None  # pins and clears are no worker's: the peer needs a resync
    line: SupervisorLine | None = None  # None as below
    face: Face | None = None  # None as below
    commits: Commits | None = None  # None: nothing can be changed here (tests of the reading verbs)

    def announce(self, message: str, event: str = "admin", **keys: Any) -> None:
        """Put an administrative, health or process event into the stream and the log."""
        self.events.publish({"at": self.clock.now_iso(), "event": event, **keys, "message": message})


def known(slots: Iterable[int]) -> list[int]:
    """Slots without the -1 that stands for none."""
    return [slot for slot in slots if slot >= 0]
