"""REST: what is kept: backups, graphs, logs, support archives; and what came of the alerts."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lbfast.model.upkeep import MOST_REACH_S
from lbfast.web.api_common import LONG_S, Configurer, Operator, Reader, Report, ask
from lbfast.web.auth import Identity

ROUTER = APIRouter(tags=["kept"])

PIECE: Final = 384 * 1024  # of an upload; it travels as base64 in a request of at most 1 MiB
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
Range = Annotated[int, Query(ge=60, le=MOST_REACH_S, description="Seconds back from the end.")]
Word = Annotated[str | None, Query(max_length=200)]


class NewBackup(BaseModel):
    """How to make it."""

    model_config = ConfigDict(extra="forbid")

    passphrase: str | None = Field(default=None, max_length=1_000, description="Encrypts it.")
    reason: str | None = Field(default=None, max_length=500)


class Restore(BaseModel):
    """What to restore."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    passphrase: str | None = Field(default=None, max_length=1_000)
    trial: bool = Field(default=False, description="Only say what would change.")
    confirm: int | None = Field(default=None, ge=1, le=86_400)


class NewSupport(BaseModel):
    """How to make it."""

    model_config = ConfigDict(extra="forbid")

    masked: bool = Field(default=False, description="Stand-ins in place of client addresses.")


@ROUTER.get("/backups")
async def backups(request: Request, who: Operator) -> Report:
    """The backups that are kept, newest first."""
    return await ask(request, "backups", who)


@ROUTER.post("/backups", status_code=201)
async def backup(request: Request, who: Configurer, wish: NewBackup | None = None) -> Report:
    """Make a backup."""
    return await ask(request, "backup", who, timeout=LONG_S, **(wish or NewBackup()).model_dump())


@ROUTER.get("/backups/{name}", response_class=Response, responses=_FILE)
async def backup_file(request: Request, who: Configurer, name: str) -> Response:
    """Download a backup."""
    return await fetch(request, who, "backup", name)


@ROUTER.put("/backups/{name}")
async def upload_backup(request: Request, who: Configurer, name: str) -> Report:
    """Upload a backup; the body is the file."""
    return await take(request, who, name, await request.body())


@ROUTER.delete("/backups/{name}")
async def delete_backup(request: Request, who: Configurer, name: str) -> Report:
    """Delete a backup."""
    return await ask(request, "file_delete", who, kind="backup", name=name)


@ROUTER.post("/restore")
async def restore(request: Request, who: Configurer, wish: Restore) -> Report:
    """Restore a backup: what it changes, and unless it is a trial, it is done."""
    return await ask(request, "restore", who, timeout=LONG_S, **wish.model_dump())


@ROUTER.get("/series")
async def series(
    request: Request,
    who: Reader,
    service: Word = None,
    real: Word = None,
    range: Range = 3_600,
    end: Annotated[int | None, Query(ge=0, le=1 << 40, description="Unix time. Default: now.")] = None,
) -> Report:
    """Graphs of a virtual service, a real server, or (without both) the host."""
    return await ask(request, "series", who, service=service, real=real, range=range, end=end)


@ROUTER.get("/availability")
async def availability(request: Request, who: Reader, range: Range = 2_592_000) -> Report:
    """How much of the time each real server was up, in percent."""
    return await ask(request, "availability", who, range=range)


@ROUTER.get("/logs")
async def logs(
    request: Request,
    who: Reader,
    kind: Annotated[Literal["connections", "health", "audit", "system"] | None, Query()] = None,
    since: Annotated[str | None, Query(max_length=40)] = None,
    until: Annotated[str | None, Query(max_length=40)] = None,
    client: Annotated[str | None, Query(max_length=64)] = None,
    service: Word = None,
    real: Word = None,
    reason: Annotated[str | None, Query(max_length=40)] = None,
    text: Word = None,
    limit: Annotated[int, Query(ge=1, le=5_000)] = 200,
) -> Report:
    """Records of the log, newest first."""
    wanted = {"kind": kind, "since": since, "until": until, "client": client, "service": service, "real": real}
    given: dict[str, Any] = {key: value for key, value in (wanted | {"reason": reason, "text": text}).items() if value}
    return await ask(request, "logs", who, limit=limit, **given)


@ROUTER.get("/support")
async def supports(request: Request, who: Operator) -> Report:
    """The support archives that are kept."""
    return await ask(request, "supports", who)


@ROUTER.post("/support", status_code=201)
async def support(request: Request, who: Operator, wish: NewSupport | None = None) -> Report:
    """Make a support archive."""
    return await ask(request, "support", who, timeout=LONG_S, masked=(wish or NewSupport()).masked)


@ROUTER.get("/support/{name}", response_class=Response, responses=_FILE)
async def support_file(request: Request, who: Operator, name: str) -> Response:
    """Download a support archive."""
    return await fetch(request, who, "support", name)


@ROUTER.get("/alerts")
async def alerts(request: Request, who: Reader) -> Report:
    """The ways by which alerts are sent, and what came of the last ones."""
    return await ask(request, "alerts", who)


@ROUTER.post("/alerts/test")
async def alerts_test(request: Request, who: Configurer) -> Report:
    """Send a test alert by every way; what came of each."""
    return await ask(request, "alerts_test", who, timeout=LONG_S)


async def fetch(request: Request, who: Identity, kind: str, name: str) -> Response:
    """A file of the shelf, piece by piece."""
    first = await ask(request, "file_get", who, kind=kind, name=name, offset=0)

    async def pieces() -> AsyncIterator[bytes]:
        piece = first
        while True:
            yield base64.b64decode(piece["data"])
            if piece["next"] is None:
                return
            piece = await ask(request, "file_get", who, kind=kind, name=name, offset=piece["next"])

    headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(first["size"])}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def take(request: Request, who: Identity, name: str, content: bytes) -> Report:
    """A file for the shelf, in pieces that the control socket takes."""
    offset, result = 0, {}
    while True:
        piece = content[offset : offset + PIECE]
        is_last = offset + len(piece) >= len(content)
        data = base64.b64encode(piece).decode()
        result = await ask(request, "file_put", who, kind="backup", name=name, offset=offset, data=data, last=is_last)
        offset += len(piece)
        if is_last:
            return result
