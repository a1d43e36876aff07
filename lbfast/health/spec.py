"""What to probe and how to judge it: one frozen record per real server, all durations in milliseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum


class ProbeType(Enum):
    CONNECT = "connect"
    HTTP = "http"
    HTTPS = "https"
    TLS = "tls"
    EXTERNAL = "external"
    NONE = "none"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class FlapSpec:
    """From the ``threshold``-th fall on, a server that keeps falling waits longer each time before it is up again."""

    threshold: int = 3  # 0 = no damping
    window_ms: int = 300_000  # so long up without a fall, and all falls are forgotten
    hold_ms: int = 10_000  # first hold; doubles with each further fall
    max_hold_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """The probe of one real server.  ``port`` is the port to probe, ``vip`` and ``vport`` are for scripts."""

    type: ProbeType
    address: str
    port: int
    vip: str = ""
    vport: int = 0
    method: str = "GET"
    path: str = "/"
    host: str | None = None  # Host header; None = the address
    sni: str | None = None  # server name in TLS; None = the host, unless that is an address
    expected_status: frozenset[int] = frozenset(range(200, 300))
    expected_text: str | None = None
    expected_regex: re.Pattern[str] | None = None
    script: str | None = None
    source_address: str | None = None
    interval_ms: int = 4_000
    timeout_ms: int = 2_000
    rise: int = 2
    fall: int = 2
    jitter: float = 0.1  # part of the interval by which a probe may come earlier or later
    all_down_grace_ms: int = 60_000
    flap: FlapSpec = field(default_factory=FlapSpec)

    @property
    def window_ms(self) -> int:
        """How far apart one cause can show in two servers' probes: one interval and one timeout."""
        return int(self.interval_ms * (1 + self.jitter)) + self.timeout_ms


@dataclass(frozen=True, slots=True)
class CheckedReal:
    """A real server to be probed: its places in shared memory, its names, its probe."""

    slot: int
    service: int
    service_label: str
    label: str
    spec: ProbeSpec
    is_fallback: bool = False
