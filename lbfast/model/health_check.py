"""The settings of a virtual service's health check."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lbfast.model.addresses import HostAddress
from lbfast.model.duration_types import Duration, PositiveDuration, duration_type
from lbfast.model.ranges import Statuses
from lbfast.model.values import written
from lbfast.model.words import FilePath, HostName, HttpPath, RegularExpression

SETTINGS = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=True, serialize_by_alias=True)
"""Of every model: no coercion, no unknown keys, no change after validation; defaults written as the file has them."""

Port = Annotated[int, Field(ge=1, le=65_535)]
CheckType = Literal["connect", "http", "https", "tls", "external", "none"]

# Which keys say something for which type; a key that says nothing is refused instead of silently ignored.
_HTTP_KEYS = frozenset(
    {"path", "method", "host", "expected_status", "expected_text", "expected_regex"},
)
TYPE_KEYS: dict[str, frozenset[str]] = {
    "connect": frozenset(),
    "http": _HTTP_KEYS,
    "https": _HTTP_KEYS | {"sni"},
    "tls": frozenset({"sni"}),
    "external": frozenset({"script"}),
    "none": frozenset(),
}
SPECIFIC_KEYS = frozenset().union(*TYPE_KEYS.values())


class HealthCheck(BaseModel):
    """How real servers are probed; every server of the virtual service alike."""

    model_config = SETTINGS

    type: CheckType = Field(
        default="connect",
        description="What a probe does: connect (TCP), http, https, tls (handshake only), external (a script), "
        "none (every server counts as up).",
    )
    interval: Annotated[int, duration_type(100, 86_400_000)] = Field(
        default=written("4s"),
        description="Time between two probes of one server. A probe never starts before the last one has ended.",
    )
    timeout: PositiveDuration = Field(default=written("2s"), description="A probe that takes longer has failed.")
    rise: int = Field(default=2, ge=1, le=100, description="Probes in a row that must succeed before a server is up.")
    fall: int = Field(default=2, ge=1, le=100, description="Probes in a row that must fail before a server is down.")
    jitter: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Each interval is varied by up to this share, so that probes do not march in step.",
    )
    port: Port | None = Field(
        default=None,
        description="Port to probe. Default: the real server's port, else the first of the virtual service.",
    )
    source_address: HostAddress | None = Field(
        default=None, description="Address to probe from. Default: the kernel's choice."
    )
    path: HttpPath = Field(default="/", description="http, https: path of the request, with its query if any.")
    method: Literal["GET", "HEAD"] = Field(default="GET", description="http, https: method of the request.")
    host: HostName | None = Field(
        default=None, description="http, https: Host header. Default: the address of the real server."
    )
    sni: HostName | None = Field(
        default=None, description="https, tls: server name of the handshake. Default: host, if that is a name."
    )
    expected_status: Statuses = Field(
        default=written("200-299"),
        description="http, https: statuses that count as success. Redirects are never followed: a redirect is a "
        "success only if its status is named here.",
    )
    expected_text: Annotated[str, Field(min_length=1, max_length=1_000)] | None = Field(
        default=None, description="http, https: text that the body must contain."
    )
    expected_regex: RegularExpression | None = Field(
        default=None, description="http, https: regular expression that must be found in the body."
    )
    script: FilePath | None = Field(
        default=None,
        description="external: program to run with four arguments: address and port of the virtual service, address "
        "and port of the real server. Exit status 0 = up; killed at the timeout.",
    )
    all_down_grace: Duration = Field(
        default=written("60s"),
        description="When all servers of the virtual service fail the same probe at the same time, the last good ones "
        "go on for this long, because the probe is then more likely wrong than all servers. 0s = off.",
    )
    flap_threshold: int = Field(
        default=3,
        ge=0,
        le=100,
        description="A server that keeps going down is damped: from this fall on it stays down for flap_hold even if "
        "probes succeed, twice as long after each further fall. 0 = off.",
    )
    flap_window: PositiveDuration = Field(
        default=written("5m"), description="So long up without a fall, and all falls are forgotten."
    )
    flap_hold: PositiveDuration = Field(
        default=written("10s"), description="The first hold of a server that is damped."
    )
    flap_max_hold: PositiveDuration = Field(default=written("5m"), description="The longest hold.")

    def is_expected(self, status: int) -> bool:
        """Whether an HTTP status counts as success."""
        return any(first <= status <= last for first, last in self.expected_status)
