"""The data plane: accept, pick, connect, relay, half_close, close."""

from collections.abc import Container, Sequence

from lbfast._conn import Slab
from lbfast._counters import Counters
from lbfast._journal import Journal
from lbfast._ring import Ring
from lbfast._stick import StickTable
from lbfast._table import Table

LOOP_SIGNAL: int  # a signal handler ran: look at your flags
LOOP_CONTROL: int  # the control descriptor is readable
LOOP_TICK: int  # a second has passed
LOOP_DRAINED: int  # stop_accepting() was called and no connection is left

class Loop:
    """One worker's event loop.  ``run`` releases the GIL and comes back for four reasons."""

    def __init__(
        self,
        index: int,
        table: Table,
        counters: Counters,
        slab: Slab,
        ring: Ring,
        *,
        inbox: int,
        outboxes: dict[int, int],
        control: int,
        health_wake: int,
        ring_wake: int = -1,
        pipe_size: int = 262144,
        max_pipes: int = 256,
    ) -> None:
        """``inbox``: datagram socket on which other workers hand accepted sockets over;
        ``index``: its seat; ``outboxes``: seat -> the sending end of its inbox; ``control``: descriptor that makes
        ``run`` return LOOP_CONTROL; ``health_wake``: eventfd written when a connect fails;
        ``ring_wake``: eventfd written by an event whose reader sleeps."""
    def set_journal(self, journal: Journal) -> None: ...
    def set_stick(self, service: int, table: StickTable | None) -> None: ...
    def add_listener(self, fd: int, service: int, port: int) -> None:
        """Accept on a listening, non-blocking socket owned by the supervisor."""
    def remove_listener(self, fd: int) -> None: ...
    def run(self) -> int: ...
    def watch_control(self, fd: int) -> None: ...
    def forget_control(self, fd: int) -> None: ...
    def tables(self) -> dict[int, StickTable]: ...
    def stop_accepting(self) -> None: ...
    def meet(self, seat: int, slab: Slab, outbox: int = -1) -> None:
        """Another seat's connections, and the sending end of its inbox, which must stay open."""
    def leave(self, targets: Sequence[int] | dict[int, int], apart: bool = False) -> None:
        """Accept no more and give every connection to the workers on these seats; ``run`` ends with LOOP_DRAINED.
        ``apart``: seat -> sending end of its inbox, of workers that do not share this one's memory."""
    def give_away(self, services: Container[int], outbox: int, ended: int) -> int:
        """Send connections of these service slots to another process and forget them; how many cannot go (they
        are not established, or about to end), -1 when ``outbox`` is full."""
    def close_all(self, ended: int) -> int:
        """End every connection (RST towards both sides when it holds bytes); how many."""
    def close(self) -> None: ...
