"""States, reasons and endings: one number, one word, for C, logs, CLI and API alike.

The numbers are part of the layout of shared memory (``lbfast/_table.pxd`` and
``lbfast/_ring.pxd`` hold the same enums; ``tests/cython/test_enums.py`` compares
them).  ``str(member)`` is the word that people see.
"""

from __future__ import annotations

from enum import IntEnum


class Word(IntEnum):
    """An IntEnum whose text is its name in lower case."""

    def __str__(self) -> str:
        return self.name.lower()


class Scheduler(Word):
    WLC = 0
    WRR = 1
    HASH = 2


class Persistence(Word):
    NONE = 0
    SOURCE_IP = 1


class DrainPolicy(Word):
    """What drain does with a client that has a stick entry (ADR 0001)."""

    UNTIL_EXPIRY = 0
    WHILE_CONNECTED = 1
    NEW_CHOICE = 2


class AtLimit(Word):
    """What happens to a connection beyond a service's ``max_connections``."""

    QUEUE = 0
    RESET = 1
    FALLBACK = 2


class Admin(Word):
    """What the operator wants of a real server."""

    ONLINE = 0
    DRAIN = 1
    HALT = 2


class Health(Word):
    """What the probes say of a real server."""

    UNKNOWN = 0
    UP = 1
    DOWN = 2


class Reason(Word):
    """Why a connection went to its real server."""

    NONE = 0
    TABLE = 1  # the stick table named it
    NEW = 2  # first contact, the scheduler chose
    PENDING = 3  # followed a reservation of the same client that was still connecting
    REDISPATCH = 4  # the connect to the first choice failed
    PINNED = 5  # an operator pinned this client
    DRAINED = 6  # its real server drains, so it was moved
    DOWN = 7  # its real server is down, so it was moved
    FULL = 8  # its real server is at max_connections
    PEER = 9  # the entry was learned from the peer
    FALLBACK = 10  # no real server could take it
    UNSTORED = 11  # new, but the stick table had no room for an entry
    HALTED = 12  # its real server is halted, so it was moved


class Ended(Word):
    """How a connection ended."""

    NONE = 0
    CLOSE = 1  # both sides said all and closed
    RESET = 2  # one side sent RST
    CLIENT_IDLE = 3  # client idle timeout
    SERVER_IDLE = 4  # server idle timeout
    HALF_CLOSE = 5  # half-close timeout
    HALT = 6  # an operator halted the real server
    CONNECT = 7  # no real server could be connected
    NO_SERVER = 8  # no real server may take it
    DENIED = 9  # allow or deny list
    LIMIT = 10  # service max_connections
    CLIENT_LIMIT = 11  # per-client connection limit
    PROXY = 12  # PROXY header missing, malformed or too slow
    DEAD = 13  # keepalive or TCP_USER_TIMEOUT gave the other side up
    RESOURCE = 14  # out of descriptors, memory or source ports
    WORKER_DIED = 15  # its worker was killed
    STOP = 16  # lbfast was stopped
    CUT = 17  # an operator or a drain deadline cut it
    MOVED = 18  # it goes on at the peer: a planned takeover
    TAKEOVER = 19  # it cannot: its service address is the peer's now


class EndedBy(Word):
    """Who ended a connection."""

    NOBODY = 0
    CLIENT = 1
    SERVER = 2
    LBFAST = 3


class EventKind(Word):
    OPEN = 1  # the server side is connected
    CLOSE = 2  # an opened connection ended
    REFUSE = 3  # a connection that never reached a real server
    CONNECT_FAIL = 4  # one failed connect; the connection may go on elsewhere


class Phase(Word):
    """Where a connection is in its life."""

    FREE = 0
    PROXY = 1  # waiting for the PROXY header
    CONNECT = 2
    RELAY = 3
    LINGER = 4  # last bytes on their way out before a reset
    MOVED = 5  # on its way to another worker


class Effective(Word):
    """Admin state and health combined: what a real server does for clients."""

    CHECKING = 0  # no verdict yet: nobody goes there
    UP = 1  # takes everybody
    DRAIN = 2  # takes whom the drain policy lets return
    DOWN = 3  # takes nobody
    HALT = 4  # takes nobody, live connections are cut


_EFFECTIVE: dict[tuple[Admin, Health], Effective] = {
    (Admin.ONLINE, Health.UNKNOWN): Effective.CHECKING,
    (Admin.ONLINE, Health.UP): Effective.UP,
    (Admin.ONLINE, Health.DOWN): Effective.DOWN,
    (Admin.DRAIN, Health.UNKNOWN): Effective.CHECKING,
    (Admin.DRAIN, Health.UP): Effective.DRAIN,
    (Admin.DRAIN, Health.DOWN): Effective.DOWN,
    (Admin.HALT, Health.UNKNOWN): Effective.HALT,
    (Admin.HALT, Health.UP): Effective.HALT,
    (Admin.HALT, Health.DOWN): Effective.HALT,
}


def effective_state(admin: Admin, health: Health) -> Effective:
    """The one truth table of a real server's state."""
    return _EFFECTIVE[admin, health]
