"""Virtual services and their real servers, as the configuration says them."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, Field, Strict

from lbfast.model.addresses import HostAddress, ListenAddress, Network
from lbfast.model.duration_types import Duration, KeepaliveDuration, PositiveDuration, duration_type
from lbfast.model.health_check import SETTINGS, HealthCheck, Port
from lbfast.model.ranges import Ports, numbers_of, render_ranges
from lbfast.model.state import AtLimit, DrainPolicy, Persistence, Scheduler
from lbfast.model.values import written
from lbfast.model.words import FALLBACK_LABEL, CongestionControl, Identity, InterfaceName, Label, RealLabel, words

__all__ = ["FALLBACK_LABEL", "FallbackServer", "PersistenceSettings", "RealServer", "VirtualService"]

MOST_SOURCES = 8

PersistenceWord = Annotated[Persistence, words(Persistence)]
SchedulerWord = Annotated[Scheduler, words(Scheduler)]
DrainPolicyWord = Annotated[DrainPolicy, words(DrainPolicy)]
AtLimitWord = Annotated[AtLimit, words(AtLimit)]
Networks = Annotated[tuple[Network, ...], Strict(False)]


class PersistenceSettings(BaseModel):
    """How a client stays on its real server."""

    model_config = SETTINGS

    mode: PersistenceWord = Field(
        default=written("source_ip"),
        description="source_ip: a client address stays on its real server. none: every connection anew.",
    )
    timeout: Annotated[int, duration_type(1_000)] = Field(
        default=written("30m"), description="How long an entry outlives the client's last connection."
    )
    mask_v4: int = Field(
        default=32, ge=1, le=32, description="IPv4 clients that share this many leading bits are one client."
    )
    mask_v6: int = Field(default=128, ge=1, le=128, description="The same for IPv6 clients.")
    table_size: int = Field(
        default=100_000,
        ge=14,
        le=16_777_216,
        description="Entries that the stick table can hold; one is 64 bytes, and memory is taken only as it fills.",
    )


class FallbackServer(BaseModel):
    """Where connections go when no real server can take them; never stored in the stick table."""

    model_config = SETTINGS

    address: HostAddress = Field(description="Address of the fallback server.")
    port: Port | None = Field(default=None, description="Its port. Default: the port the client came to.")
    id: Identity | None = Field(default=None, description="Stable identity (UUID). Made and kept when left out.")


class RealServer(BaseModel):
    """One machine behind a virtual service."""

    model_config = SETTINGS

    label: RealLabel = Field(description='Name for people; unique in its virtual service. "fallback" is reserved.')
    id: Identity | None = Field(default=None, description="Stable identity (UUID). Made and kept when left out.")
    address: HostAddress = Field(description="Address of the real server.")
    port: Port | None = Field(default=None, description="Its port. Default: the port the client came to.")
    weight: int = Field(
        default=100, ge=0, le=256, description="Share of new clients compared with the others. 0 = known clients only."
    )
    max_connections: int = Field(
        default=0, ge=0, le=10_000_000, description="Most connections at the same time, over all workers. 0 = no limit."
    )
    slow_start: Duration = Field(
        default=written("0s"),
        description="After coming up again, or online after a drain or halt, the weight rises from nothing to its full "
        "value over this time. 0s = at once.",
    )


class VirtualService(BaseModel):
    """What clients reach: an address, ports, and the real servers behind them."""

    model_config = SETTINGS

    label: Label = Field(description="Name for people; unique.")
    id: Identity | None = Field(default=None, description="Stable identity (UUID). Made and kept when left out.")
    address: ListenAddress = Field(
        description="IPv4 or IPv6 address that clients reach; raised at start if it lies in an interface's subnet. "
        '"0.0.0.0" and "::" are every address of their family.'
    )
    interface: InterfaceName | None = Field(
        default=None, description="Interface that carries the address. Default: found by its subnet."
    )
    ports: Ports = Field(description='TCP ports: "443", "80,443", "8000-8010". All share one stick table.')
    mode: Literal["tcp"] = Field(default="tcp", description="tcp: bytes are relayed as they are.")
    scheduler: SchedulerWord = Field(
        default=written("wlc"),
        description="How a new client's real server is chosen: wlc (fewest connections by weight), wrr (in turn by "
        "weight), hash (by client address).",
    )
    persistence: PersistenceSettings = Field(
        default=PersistenceSettings(), description="Keeping a client on its real server."
    )
    health_check: HealthCheck = Field(default=HealthCheck(), description="How real servers are probed.")

    drain_policy: DrainPolicyWord = Field(
        default=written("until_expiry"),
        description="What drain does with known clients: until_expiry (may return until their entry expires), "
        "while_connected (may return while they have a connection), new_choice (their next connection moves).",
    )
    drain_deadline: PositiveDuration | None = Field(
        default=None, description="After this long a draining server takes no known client back. Default: no deadline."
    )
    drain_cut: bool = Field(default=False, description="At the deadline, also cut the connections that are left.")

    client_idle_timeout: PositiveDuration = Field(
        default=written("12h"), description="A client that is silent for so long is cut."
    )
    server_idle_timeout: PositiveDuration = Field(
        default=written("12h"), description="A real server that is silent for so long is cut."
    )
    connect_timeout: PositiveDuration = Field(
        default=written("4s"), description="A connect to a real server that takes longer has failed."
    )
    half_close_timeout: PositiveDuration = Field(
        default=written("5m"),
        description="After one side has said all, silence of the other for so long ends the connection.",
    )
    retries: int = Field(default=3, ge=0, le=100, description="Connects tried again after the first one failed.")
    redispatch: bool = Field(
        default=True,
        description="After a failed connect, try another real server at once. "
        "false: try the same one again, after a second.",
    )
    passive_fall: int = Field(
        default=3,
        ge=0,
        le=1_000,
        description="Failed connects in a row that take a real server out before the next probe. 0 = never.",
    )

    max_connections: int = Field(
        default=40_000, ge=1, le=10_000_000, description="Most connections at the same time, over all workers."
    )
    at_limit: AtLimitWord = Field(
        default=written("queue"),
        description="What happens beyond max_connections: queue (the kernel's queue holds them), reset, fallback.",
    )
    client_max_connections: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Most connections of one client address at the same time. 0 = no limit.",
    )
    client_limit_report_only: bool = Field(
        default=False, description="Count and report what is beyond client_max_connections, refuse nothing."
    )
    allow: Networks = Field(default=(), description="Networks whose clients are served. Empty = everybody.")
    deny: Networks = Field(default=(), description="Networks whose clients are refused; wins over allow.")

    source_addresses: Annotated[tuple[HostAddress, ...], Strict(False), Field(max_length=MOST_SOURCES)] = Field(
        default=(), description="Addresses of this machine to connect from, used in turn. Empty = the kernel's choice."
    )
    source_address: Literal["auto", "vip"] = Field(
        default="auto",
        description="vip: connect to the real servers from the service address, so that in a pair a planned takeover "
        "can move established connections. auto: source_addresses.",
    )
    fallback_server: FallbackServer | None = Field(
        default=None, description="Where connections go when no real server can take them. Default: they are reset."
    )

    tcp_keepalive: bool = Field(
        default=True, description="TCP keepalive on both sides, so that dead peers are noticed."
    )
    keepalive_idle: KeepaliveDuration = Field(
        default=written("60s"), description="Silence before the first keepalive probe."
    )
    keepalive_interval: KeepaliveDuration = Field(default=written("10s"), description="Time between keepalive probes.")
    keepalive_count: int = Field(
        default=6, ge=1, le=127, description="Unanswered keepalive probes that end a connection."
    )
    tcp_user_timeout: Duration = Field(
        default=written("2m"),
        description="Data unacknowledged for so long ends a connection (TCP_USER_TIMEOUT). 0s = kernel default.",
    )
    client_speaks_first: bool = Field(
        default=False,
        description="true for HTTP, HTTPS and whatever else begins with the client: a connection is taken up with its "
        "first bytes (TCP_DEFER_ACCEPT), which saves a tenth of the CPU time of a short one. Never for SSH, SMTP, "
        "databases.",
    )
    congestion_control: CongestionControl = Field(
        default="cubic",
        description="TCP congestion control of both sides, one of net.ipv4.tcp_available_congestion_control; "
        '"system" = whatever the machine is set to. bbr paces by timers, which costs a proxy on a fast network CPU.',
    )

    send_proxy: Literal["none", "v1", "v2"] = Field(
        default="none", description="PROXY protocol header to the real servers, so that they see the client's address."
    )
    accept_proxy_from: Networks = Field(
        default=(),
        description="Networks of proxies whose connections must begin with a PROXY protocol header, v1 or v2.",
    )
    proxy_timeout: PositiveDuration = Field(
        default=written("3s"), description="A PROXY header that takes longer is refused."
    )

    real_servers: Annotated[tuple[RealServer, ...], Strict(False)] = Field(
        default=(), alias="real_server", description="The machines behind this virtual service."
    )

    @cached_property
    def port_numbers(self) -> tuple[int, ...]:
        """Every port, in ascending order."""
        return tuple(numbers_of(self.ports))

    @property
    def sources(self) -> tuple[str, ...]:
        """Addresses to connect from; empty = the kernel's choice."""
        return (str(self.address),) if self.source_address == "vip" else tuple(map(str, self.source_addresses))

    @property
    def has_table(self) -> bool:
        """Whether it needs a stick table: to keep clients, or to count their connections."""
        return self.persistence.mode is not Persistence.NONE or self.client_max_connections > 0

    @property
    def ports_text(self) -> str:
        """The ports as the file says them, normalised: ``80,443,8000-8010``."""
        return render_ranges(self.ports)
