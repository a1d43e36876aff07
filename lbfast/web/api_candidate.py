"""REST: the candidate, edited with ETag and If-Match, and its commit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from lbfast.web.api_common import (
    LONG_S,
    Configurer,
    IfMatch,
    Reader,
    RealLabel,
    Refusal,
    Report,
    ServiceLabel,
    ask,
    etag,
    problem,
    tag_of,
)

ROUTER = APIRouter(prefix="/candidate", tags=["candidate"])

Settings = Annotated[
    dict[str, Any], Field(description="Keys as in the configuration file. null takes a key out; tables are merged.")
]
Trial = Annotated[bool, Query(description="Only say what would be wrong.")]
Removed = Annotated[Literal["cut", "drain"], Query(description="Connections of removed real servers.")]


class Editing:
    """An edit of the candidate: who wants it, what it must still be (If-Match), and where its new ETag goes."""

    def __init__(self, request: Request, response: Response, who: Configurer, if_match: IfMatch = None) -> None:
        self._request = request
        self._response = response
        self._who = who
        self._tag = tag_of(if_match)

    async def do(self, *operations: Report, trial: bool = False) -> Report:
        """All of them or none; what is not valid ends the call."""
        for operation in operations:
            for key in ("service", "real"):
                label = operation.get(key)
                if isinstance(label, str):
                    operation[key] = label.replace("%2F", "/").replace("%2f", "/")
        wish: Report = {"operations": list(operations), "tag": self._tag, "trial": trial}
        found = await ask(self._request, "candidate_edit", self._who, is_matched=True, **wish)
        etag(self._response, found["tag"])
        if not found["accepted"] and not trial:
            raise _not_valid(found["problems"])
        return found


Editor = Annotated[Editing, Depends(Editing)]


class Edits(BaseModel):
    """Operations as docs/api.md lists them; all are done, or none."""

    model_config = ConfigDict(extra="forbid")

    operations: list[dict[str, Any]] = Field(min_length=1, max_length=1_000)


class Commit(BaseModel):
    """How to commit."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=500)
    confirm: int | None = Field(default=None, ge=1, le=86_400, description="Seconds after which it reverts by itself.")
    removed: Literal["cut", "drain"] = "cut"
    cut_after: int | None = Field(
        default=None, ge=0, le=24 * 86_400, description="With drain: seconds after which what is left is cut."
    )
    overwrite: bool = Field(default=False, description="Also when another version was committed since.")


class HealthTest(BaseModel):
    """Which health check to try, and on which server."""

    model_config = ConfigDict(extra="forbid")

    service: str = Field(
        min_length=1, max_length=200, description="Label of the virtual service, after the operations."
    )
    operations: list[dict[str, Any]] = Field(default=[], max_length=1_000, description="Tried, not kept.")
    real: str | None = Field(default=None, max_length=200, description="Only this real server; null: all.")
    address: str | None = Field(default=None, min_length=1, max_length=64, description="Ask this server instead.")
    port: int | None = Field(default=None, ge=1, le=65_535, description="Its port, with address.")


@ROUTER.get("")
async def show(request: Request, response: Response, who: Reader) -> Report:
    """The candidate's text, who changed what, and its ETag."""
    found = await ask(request, "candidate", who)
    etag(response, found["tag"])
    return found


@ROUTER.get("/diff")
async def diff(request: Request, who: Reader) -> Report:
    """The candidate against the running configuration."""
    return await ask(request, "candidate_diff", who)


@ROUTER.get("/plan")
async def plan(request: Request, who: Reader, removed: Removed = "cut") -> Report:
    """The steps of a commit, and what clients would notice."""
    return await ask(request, "candidate_plan", who, removed=removed)


@ROUTER.post("/edits")
async def edits(editor: Editor, edits: Edits, trial: Trial = False) -> Report:
    """Several operations as one."""
    return await editor.do(*edits.operations, trial=trial)


@ROUTER.post("/health/test")
async def health_test(request: Request, who: Configurer, wish: HealthTest) -> Report:
    """Probe now with a health check that is not committed, or not even saved; what was seen, step by step."""
    found = await ask(request, "health_test", who, timeout=LONG_S, **wish.model_dump())
    if not found["accepted"]:
        raise _not_valid(found["problems"])
    return {"service": found["service"], "tests": found["tests"]}


@ROUTER.post("/commit")
async def commit(request: Request, who: Configurer, wish: Commit | None = None, if_match: IfMatch = None) -> Report:
    """Make the candidate the running configuration, live; whole effect or none."""
    wish = wish or Commit()
    args = wish.model_dump()
    tag = tag_of(if_match)
    return await ask(request, "candidate_commit", who, is_matched=tag is not None, timeout=LONG_S, tag=tag, **args)


@ROUTER.delete("")
async def discard(request: Request, who: Configurer, if_match: IfMatch = None) -> Report:
    """Throw all changes away."""
    return await ask(request, "candidate_discard", who, is_matched=True, tag=tag_of(if_match))


@ROUTER.post("/services", status_code=201)
async def add_service(editor: Editor, settings: Settings) -> Report:
    """Add a virtual service; ``real_server`` may hold its real servers."""
    return await editor.do({"op": "add_service", "settings": settings})


@ROUTER.patch("/services/{service}")
async def change_service(editor: Editor, service: ServiceLabel, settings: Settings) -> Report:
    """Change keys of a virtual service."""
    return await editor.do({"op": "change_service", "service": service, "settings": settings})


@ROUTER.post("/services/{service}/clone", status_code=201)
async def clone_service(editor: Editor, service: ServiceLabel, settings: Settings) -> Report:
    """Copy a virtual service; ``label``, and ``address`` or ``ports``, must be others."""
    return await editor.do({"op": "clone_service", "service": service, "settings": settings})


@ROUTER.delete("/services/{service}")
async def delete_service(editor: Editor, service: ServiceLabel) -> Report:
    """Delete a virtual service."""
    return await editor.do({"op": "delete_service", "service": service})


@ROUTER.post("/services/{service}/reals", status_code=201)
async def add_real(editor: Editor, service: ServiceLabel, settings: Settings) -> Report:
    """Add a real server."""
    return await editor.do({"op": "add_real", "service": service, "settings": settings})


@ROUTER.patch("/services/{service}/reals/{real}")
async def change_real(editor: Editor, service: ServiceLabel, real: RealLabel, settings: Settings) -> Report:
    """Change keys of a real server."""
    return await editor.do({"op": "change_real", "service": service, "real": real, "settings": settings})


@ROUTER.delete("/services/{service}/reals/{real}")
async def delete_real(editor: Editor, service: ServiceLabel, real: RealLabel) -> Report:
    """Delete a real server."""
    return await editor.do({"op": "delete_real", "service": service, "real": real})


@ROUTER.patch("/globals")
async def change_globals(editor: Editor, settings: Settings) -> Report:
    """Change what stands outside the virtual services: workers, log, web, alerts, backup, graphs ..."""
    return await editor.do({"op": "change_global", "settings": settings})


def _not_valid(problems: list[Report]) -> Refusal:
    return Refusal(problem(422, "\n".join(it["message"] for it in problems), "bad_config", problems))
