"""REST: the running configuration and its versions; and any verb by its name."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from lbfast.control.verbs import VERBS
from lbfast.web.api_common import LONG_S, Configurer, Reader, Refusal, Report, ask, etag, problem
from lbfast.web.roles import CONFIGURE, OPERATE, REPORT, may

ROUTER = APIRouter(tags=["configuration"])

# Acts that operators may do; every other act needs the role configure, what only reads the role report.
OPERATED: Final = frozenset(
    {"drain", "halt", "online", "weight", "persistence_clear", "persistence_pin", "wait", "ha_takeover"}
)


class Text(BaseModel):
    """A whole configuration."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=1_000_000, description="TOML.")
    file: str = Field(default="api", min_length=1, max_length=200, description="What errors call it.")
    removed: Literal["cut", "drain"] = "cut"
    against: int | None = Field(default=None, ge=1, description="Refuse if another version runs.")


class TextCommit(Text):
    """How to commit it."""

    reason: str | None = Field(default=None, max_length=500)
    confirm: int | None = Field(default=None, ge=1, le=86_400, description="Seconds after which it reverts by itself.")


class Revert(BaseModel):
    """Which version to go back to."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(default=None, ge=1, description="Default: the one before.")
    reason: str | None = Field(default=None, max_length=500)


@ROUTER.get(
    "/config", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def config(request: Request, who: Reader) -> Response:
    """The text of the candidate if there is one, else of the running configuration, as TOML."""
    found = await ask(request, "candidate", who)
    response = Response(found["text"], media_type="text/plain; charset=utf-8")
    etag(response, found["tag"])
    return response


@ROUTER.get("/config/schema")
async def schema(request: Request, who: Reader) -> Report:
    """The JSON schema of the configuration."""
    return await ask(request, "schema", who)


@ROUTER.post("/plan")
async def plan(request: Request, who: Configurer, wish: Text) -> Report:
    """What a commit of a text would do; nothing is changed."""
    return await ask(request, "plan", who, **wish.model_dump())


@ROUTER.post("/commit")
async def commit(request: Request, who: Configurer, wish: TextCommit) -> Report:
    """Make a text the running configuration, live."""
    return await ask(request, "commit", who, timeout=LONG_S, **wish.model_dump())


@ROUTER.post("/confirm")
async def confirm(request: Request, who: Configurer) -> Report:
    """Keep what was committed with a confirmation time."""
    return await ask(request, "confirm", who)


@ROUTER.post("/revert")
async def revert(request: Request, who: Configurer, wish: Revert | None = None) -> Report:
    """Commit an earlier version again."""
    return await ask(request, "revert", who, timeout=LONG_S, **(wish or Revert()).model_dump())


@ROUTER.get("/history")
async def history(request: Request, who: Reader) -> Report:
    """The versions that ran, newest first."""
    return await ask(request, "history", who)


@ROUTER.get("/diff")
async def diff(
    request: Request,
    who: Reader,
    before: Annotated[int | None, Query(ge=1)] = None,
    after: Annotated[int | None, Query(ge=1)] = None,
) -> Report:
    """What differs between two versions; by default the one before and the running one."""
    return await ask(request, "diff", who, before=before, after=after)


@ROUTER.post("/verbs/{verb}")
async def any_verb(request: Request, who: Reader, verb: str, args: dict[str, Any] | None = None) -> Report:
    """Any verb of the control protocol by its name, with its arguments (docs/internals.md)."""
    found = VERBS.get(verb)
    if found is None:
        raise Refusal(problem(404, f"there is no verb {verb[:80]!r}; there are {', '.join(VERBS)}", "unknown_verb"))
    role = REPORT if not found.is_act else OPERATE if verb in OPERATED else CONFIGURE
    if not may(who.role, role):
        raise Refusal(problem(403, f"{verb} needs the role {role}; {who.name} has the role {who.role}", "forbidden"))
    given = args or {}
    if verb == "events" and given.get("follow"):
        raise Refusal(problem(422, "follow: events that go on are at /events/stream", "bad_argument"))
    if odd := next((key for key in given if not key.isidentifier() or key in ("by", "timeout")), None):
        raise Refusal(problem(422, f"unknown argument {odd[:80]!r}", "bad_argument"))
    return await ask(request, verb, who, timeout=LONG_S, **given)
