"""Settings of the clustered pair that both boxes share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, Strict

from lbfast.model.duration_types import PositiveDuration, duration_type
from lbfast.model.health_check import SETTINGS
from lbfast.model.values import Parsed, refuse, text_schema, written

Port = Annotated[int, Field(ge=1, le=65535)]
_GATEWAY = "gateway"
_TIME = 'a time of day such as "02:00"'


def _parse_ping_address(value: object) -> str:
    from ipaddress import ip_address

    if value == _GATEWAY:
        return _GATEWAY
    try:
        return str(ip_address(value)) if isinstance(value, str) else _refuse_ping()
    except ValueError:
        return _refuse_ping()


def _refuse_ping() -> str:
    raise refuse('an address, or "gateway" for the default gateway of each box')


def _parse_time(value: object) -> str:
    hours, colon, minutes = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not (colon and len(hours) == len(minutes) == 2 and (hours + minutes).isdigit()):
        raise refuse(_TIME)
    if int(hours) > 24 or int(minutes) > 59 or (int(hours) == 24 and int(minutes)):
        raise refuse(_TIME)
    return f"{hours}:{minutes}"


PingAddress = Annotated[str, Parsed(_parse_ping_address, str, text_schema(example="192.168.85.1"))]
TimeOfDay = Annotated[str, Parsed(_parse_time, str, text_schema("^[0-9]{2}:[0-9]{2}$", example="02:00"))]
IntervalDuration = Annotated[int, duration_type(20, 10_000)]


class HaSettings(BaseModel):
    """How the two boxes of a pair watch each other. Without a pair it means nothing."""

    model_config = SETTINGS

    interval: IntervalDuration = Field(
        default=written("100ms"),
        description="Between two heartbeats. A takeover from a dead box takes `missed` of them, and half of one.",
    )
    missed: int = Field(
        default=3,
        ge=2,
        le=100,
        description="Heartbeats missed in a row that mean a dead peer. 3 of 100 ms: 250 to 350 ms until takeover.",
    )
    port: Port = Field(default=6694, description="UDP port of the heartbeats, on both boxes.")
    replication_port: Port = Field(default=7778, description="TCP port of the replication, on both boxes.")
    pairing: bool = Field(
        default=True,
        description="Who knows the password of this box's web user `loadbalancer` may make the box their secondary, as "
        "long as it has no peer: with a `[web]` table it listens on the replication port for that. "
        "`lbfast ha password` sets a password for a box without one.",
    )
    ping_addresses: Annotated[tuple[PingAddress, ...], Strict(False), Field(max_length=8)] = Field(
        default=("gateway",),
        description='Who must answer a ping for a box to count as connected; "gateway" is each box\'s default gateway. '
        "One that has never answered does not count. A box that hears neither these nor its peer gives up the "
        "addresses. Empty = no pings.",
    )
    echo_paths: bool = Field(
        default=True,
        description="Heartbeats also go by way of the ping addresses: echo requests in the peer's name, whose answers "
        "the peer gets. So the boxes hear each other as long as both can ping the same address. Off where the network "
        "takes that for an attack.",
    )
    hung_after: PositiveDuration = Field(
        default=written("500ms"), description="A worker whose loop stands still for so long cannot serve."
    )
    auto_failback: bool = Field(
        default=False, description="The primary takes the addresses back by itself when it can serve as well again."
    )
    failback_delay: PositiveDuration = Field(
        default=written("5m"), description="With auto_failback: only after the primary has been well for so long."
    )
    failback_from: TimeOfDay = Field(default="00:00", description="With auto_failback: not before this time of day ...")
    failback_until: TimeOfDay = Field(default="24:00", description="... and not after this one.")
    announce_interval: PositiveDuration = Field(
        default=written("10s"), description="The active box repeats its address announcements (gratuitous ARP)."
    )
