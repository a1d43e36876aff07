"""REST: API keys, and passwords of the web interface's users; as `lbfast apikey` and `lbfast passwd` do it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from lbfast.web.api_common import Configurer, Refusal, Report, need, problem
from lbfast.web.auth import Identity, source_of, state_of
from lbfast.web.passwords import MOST, why_weak
from lbfast.web.state import WebState

ROUTER = APIRouter(tags=["access"])


class NewKey(BaseModel):
    """What it may do, and until when."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["configure", "operate", "report"]
    label: str = Field(default="", max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="What it is for.")
    days: int | None = Field(default=None, ge=1, le=3_650, description="How long it is valid. Default: no end.")


class NewPassword(BaseModel):
    """Of a user."""

    model_config = ConfigDict(extra="forbid")

    password: str = Field(max_length=MOST)
    no_totp: bool = Field(default=False, description="Switch the user's second factor off as well.")


@ROUTER.get("/keys", dependencies=[Depends(need("configure"))])
async def keys(request: Request) -> Report:
    """The API keys, without their secrets."""
    return {"keys": [asdict(key) for key in state_of(request).keys.all()]}


@ROUTER.post("/keys", status_code=201)
async def create_key(request: Request, who: Configurer, wish: NewKey) -> Report:
    """Make an API key; ``key`` is shown once. A key makes none that lives longer than itself."""
    state = state_of(request)
    lives = timedelta(days=wish.days) if wish.days else None
    end = _end_of(state, who)
    if end is not None and (lives is None or state.clock() + lives > end):
        why = f"days: the key that asks ends at {end.isoformat()}; the new one must not outlive it"
        raise Refusal(problem(409, why, "refused"))
    key, secret = state.keys.create(wish.role, who.by, wish.label, lives)
    state.audit.add(who.by, "apikey create", f"key {key.id}, role {key.role}", source_of(request))
    return {**asdict(key), "key": secret}


@ROUTER.delete("/keys/{id}")
async def revoke_key(
    request: Request, who: Configurer, identity: Annotated[str, Path(alias="id", max_length=40)]
) -> Report:
    """End an API key at once."""
    state = state_of(request)
    if not state.keys.revoke(identity):
        raise Refusal(problem(404, f"there is no key {identity!r}", "no_such_key"))
    state.audit.add(who.by, "apikey revoke", f"key {identity}", source_of(request))
    return {"revoked": identity}


@ROUTER.put("/users/{user}/password")
async def set_password(
    request: Request, who: Configurer, user: Annotated[str, Path(max_length=64)], wish: NewPassword
) -> Report:
    """Set a password of the web interface; whoever is logged in as this user is logged out."""
    state = state_of(request)
    if state.users.find(user) is None:
        raise Refusal(problem(404, f"there is no user {user!r}", "no_such_user"))
    if weak := why_weak(wish.password, user):
        raise Refusal(problem(422, f"password: {weak}", "bad_argument"))
    async with state.hashing:
        await asyncio.to_thread(state.users.set_password, user, wish.password)
    if wish.no_totp:
        state.users.set_totp(user, None)
    state.audit.add(who.by, "passwd", f"password of {user} set", source_of(request))
    return {"user": user}


def _end_of(state: WebState, who: Identity) -> datetime | None:
    """When the key that asks ends; None for a browser, and for a key without an end."""
    key = state.keys.find(who.key) if who.key else None
    return datetime.fromisoformat(key.expires) if key is not None and key.expires else None
