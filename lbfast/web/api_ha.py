"""REST: the clustered pair."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from lbfast.web.api_common import Configurer, Operator, Reader, Report, ask

ROUTER = APIRouter(prefix="/ha", tags=["pair"])

_WITHIN_S: Final = 100.0  # a pairing copies the configuration


class Takeover(BaseModel):
    """Why, and whether also against the check beforehand."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=500)
    force: bool = Field(default=False, description="Also when the check beforehand objects.")


class Maintenance(BaseModel):
    """Whether this box may take addresses."""

    model_config = ConfigDict(extra="forbid")

    on: bool
    reason: str | None = Field(default=None, max_length=500)


class Way(BaseModel):
    """A heartbeat path: an address of this box, and the peer's at the other end."""

    model_config = ConfigDict(extra="forbid")

    local: str = Field(min_length=1, max_length=64)
    peer: str = Field(min_length=1, max_length=64)


class NewPair(Way):
    """With whom."""

    password: str = Field(max_length=1_000, description="Of the peer's web user `loadbalancer`.")
    overwrite: bool = Field(default=False, description="The peer's own virtual services may go.")


class Break(BaseModel):
    """How to break it."""

    model_config = ConfigDict(extra="forbid")

    force: bool = Field(default=False, description="Also when the peer cannot be told.")


@ROUTER.get("")
async def status(request: Request, who: Reader) -> Report:
    """Role, state, readiness and why not, the peer, the replication, heartbeat paths."""
    return await ask(request, "ha_status", who)


@ROUTER.post("/takeover")
async def takeover(request: Request, who: Operator, wish: Takeover | None = None) -> Report:
    """Make this box the active one."""
    return await ask(request, "ha_takeover", who, timeout=_WITHIN_S, **(wish or Takeover()).model_dump())


@ROUTER.put("/maintenance")
async def maintenance(request: Request, who: Configurer, wish: Maintenance) -> Report:
    """While it is on, this box takes no addresses; an active one hands them over first."""
    return await ask(request, "ha_maintenance", who, **wish.model_dump())


@ROUTER.post("/paths")
async def add_path(request: Request, who: Configurer, way: Way) -> Report:
    """A further way of the heartbeats, on this box, at once; answered with all."""
    return await ask(request, "ha_path", who, what="add", **way.model_dump())


@ROUTER.delete("/paths")
async def remove_path(request: Request, who: Configurer, way: Way) -> Report:
    """No more heartbeats this way, on this box."""
    return await ask(request, "ha_path", who, what="remove", **way.model_dump())


@ROUTER.post("/pair", status_code=201)
async def pair(request: Request, who: Configurer, wish: NewPair) -> Report:
    """This box becomes the primary, the peer its secondary."""
    return await ask(request, "ha_pair", who, timeout=_WITHIN_S, **wish.model_dump())


@ROUTER.delete("/pair")
async def unpair(request: Request, who: Configurer, wish: Break | None = None) -> Report:
    """Break the pair; only the active box keeps the addresses."""
    return await ask(request, "ha_unpair", who, timeout=_WITHIN_S, **(wish or Break()).model_dump())
