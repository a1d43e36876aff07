"""Logs: events as they happen, and who did what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.event_lines import event_line
from lbfast.web.render import in_language, page, why
from lbfast.web.state import WebState

MOST_SHOWN: Final = 200
_MOST_READ: Final = 1000  # of the newest, before those that are not asked for are left out


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/logs", _first, methods=["GET"]),
        Route("/lbadmin/logs/events", events, methods=["GET"]),
        Route("/lbadmin/logs/events/live", live, methods=["GET"]),
        Route("/lbadmin/logs/audit", audit, methods=["GET"]),
        Route("/lbadmin/logs/audit/download", download, methods=["GET"]),
    ]


@require("report")
async def _first(_request: Request) -> Response:
    return RedirectResponse("/lbadmin/logs/events", 303)


@require("report")
async def events(request: Request) -> Response:
    kind, word = text_of(request.query_params, "kind", 20), text_of(request.query_params, "word")
    rows: list[dict[str, Any]] = []
    fault = ""
    try:
        found = (await state_of(request).client.call("events", limit=_MOST_READ))["events"]
        rows = [line_of(request, it) for it in reversed(found)]
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    rows = [it for it in rows if fits(it, kind, word)][:MOST_SHOWN]
    return await page(request, "events.html", rows=rows, fault=fault, kind=kind, word=word)


def line_of(request: Request, event: dict[str, Any]) -> dict[str, str]:
    """In the language of whoever looks, who searches in it, too."""
    return {name: in_language(request, text) for name, text in event_line(event).items()}


def fits(line: dict[str, Any], kind: str, word: str) -> bool:
    return (not kind or line["kind"] == kind) and (not word or word.casefold() in line["text"].casefold())


@require("report", quiet=True)
async def live(request: Request) -> Response:
    kind, word = text_of(request.query_params, "kind", 20), text_of(request.query_params, "word")
    return StreamingResponse(
        _follow(request, kind, word), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def _follow(request: Request, kind: str, word: str) -> AsyncIterator[bytes]:
    """The newest once more, after a word that they begin: nothing is missing between the page, or a break, and this."""
    state, identity = state_of(request), identity_of(request)
    yield b"retry: 2000\n\n"
    is_afresh = True
    try:
        async for record in state.client.stream("events", follow=True, limit=_MOST_READ):
            if state.stopping.is_set() or (identity.digest and not state.sessions.is_alive(identity.digest)):
                return
            if is_afresh:
                yield b"event: afresh\ndata: {}\n\n"
            is_afresh = False
            line = line_of(request, record)
            if fits(line, kind, word):
                yield f"event: line\ndata: {json.dumps(line)}\n\n".encode()
            # A burst is read without waiting: others have their turn, and who has gone is noticed.
            await asyncio.sleep(0)
    except (ControlError, ControlUnavailable):
        return  # the browser asks again


@require("configure")
async def audit(request: Request) -> Response:
    word = text_of(request.query_params, "word")
    book = state_of(request).audit
    return await page(request, "audit.html", rows=book.newest(MOST_SHOWN, word), verdict=book.verify(), word=word)


@require("configure")
async def download(request: Request) -> Response:
    path = state_of(request).audit.path
    if not path.exists():
        return Response("", media_type="application/x-ndjson")
    return FileResponse(path, media_type="application/x-ndjson", filename="lbfast-audit.jsonl")
