"""Virtual services, real servers and address lists in shared memory.

``control`` (before the first fork: the supervisor) writes settings and admin
states, ``health`` writes verdicts, workers read all and write live counts.
A slot keeps its meaning for the life of its object.
"""

from collections.abc import Sequence
from typing import TypedDict

class ServiceSettings(TypedDict):
    id: bytes  # 16 bytes, the stable UUID
    scheduler: int  # model.state.Scheduler
    persistence: int  # model.state.Persistence
    persistence_timeout_ms: int
    mask_v4: int  # prefix length 0-32
    mask_v6: int  # prefix length 0-128
    drain_policy: int  # model.state.DrainPolicy
    at_limit: int  # model.state.AtLimit
    max_connections: int
    client_limit: int  # connections per client, 0 = none
    client_limit_report_only: bool
    client_idle_ms: int
    server_idle_ms: int
    connect_timeout_ms: int
    half_close_ms: int
    retries: int
    redispatch: bool
    passive_fall: int  # failed connects in a row that take a server out at once, 0 = never
    keepalive: bool
    keepalive_idle_s: int
    keepalive_interval_s: int
    keepalive_count: int
    user_timeout_ms: int  # TCP_USER_TIMEOUT, 0 = kernel default
    congestion: str  # TCP congestion control of the server side, "" = the system's
    send_proxy: int  # 0 none, 1 = v1, 2 = v2
    proxy_timeout_ms: int
    reals: Sequence[int]  # slots, in the order of the configuration
    fallback: int  # slot of the fallback server or -1
    sources: Sequence[str]  # addresses to connect from, at most 8
    allow: Sequence[str]  # CIDRs; empty = everybody
    deny: Sequence[str]  # CIDRs; deny wins
    accept_proxy_from: Sequence[str]  # CIDRs whose connections must start with a PROXY header

class RealSettings(TypedDict):
    id: bytes
    service: int  # slot of its virtual service
    address: str
    port: int  # 0 = the port the client came to
    weight: int  # 0-256
    max_connections: int  # 0 = no limit
    slow_start_ms: int
    is_fallback: bool

class ServiceState(TypedDict):
    enabled: bool
    id: bytes
    connections: int  # open now, all workers
    reals: list[int]
    fallback: int

class RealState(TypedDict):
    enabled: bool
    id: bytes
    service: int
    address: str
    port: int
    weight: int
    max_connections: int
    admin: int  # model.state.Admin
    drain_expired: bool
    drain_share: int  # of STAGGER_PARTS: clients below it are drained already
    health: int  # model.state.Health
    health_since_ms: int
    reason: str  # of the health verdict, at most 95 bytes of UTF-8
    connections: int
    failures: int  # failed connects in a row
    last_failure_ms: int
    last_failure_errno: int

def mapped(text: str) -> bytes: ...
def unmapped(packed: bytes) -> str: ...
def part_of(client: str) -> int:
    """Which part of a staggered drain, 0 to 1023, a client (as its service's mask leaves it) belongs to."""

def real_tag(id: bytes) -> int:
    """The 32 bits of an id that a stick entry keeps beside the slot, never 0."""

class Table:
    VERSION: int
    def forget_live(self) -> None: ...
    MAX_SERVICES: int
    MAX_REALS: int
    fd: int
    @staticmethod
    def create() -> Table: ...
    @staticmethod
    def attach(fd: int) -> Table: ...
    def write_service(self, slot: int, settings: ServiceSettings) -> None:
        """Publish a service; live workers follow at once.  ValueError on what does not fit."""
    def clear_service(self, slot: int) -> None: ...
    def write_real(self, slot: int, settings: RealSettings) -> None:
        """Publish a real server; admin state, health and live counts are kept if the id is unchanged."""
    def clear_real(self, slot: int) -> None: ...
    def set_weight(self, real: int, weight: int) -> None: ...
    def set_admin(self, real: int, admin: int) -> None: ...
    def set_drain_expired(self, real: int, expired: bool) -> None:
        """From now on a draining server takes no known client back either."""
    def set_drain_share(self, real: int, share: int, cut: bool) -> None:
        """Clients whose ``part_of`` is below ``share`` are drained already, and with ``cut`` cut (within 100 ms)."""
    def cut(self, real: int) -> None:
        """Every worker ends the connections that this real server has at this moment (within 100 ms)."""
    def set_health(self, real: int, health: int, reason: str) -> None: ...
    def clear_failures(self, real: int) -> None: ...
    def service(self, slot: int) -> ServiceState: ...
    def real(self, slot: int) -> RealState: ...
    def failures(self, real: int) -> tuple[int, int, int]:
        """(failed connects in a row, ms of the last, errno of the last); cheap enough to poll."""
