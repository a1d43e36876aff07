"""Commit changes: what is pending, its difference and impact; commit, commit with a timer, discard, confirm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import HOME, identity_of, require, source_of, state_of
from lbfast.web.client import AsyncClient, ControlError, ControlUnavailable
from lbfast.web.pages_history import COMMIT_S
from lbfast.web.render import back, page, why
from lbfast.web.said import joined, said
from lbfast.web.spans import Spans
from lbfast.web.state import WebState

PLACE: Final = "/lbadmin/commit"
CONFIRM_S: Final = 300
LOOK: Final = "look"  # the button that shows the impact of another policy
_TYPED: Final = ("reason", "removed", "cut_after")


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, review, methods=["GET"]), Route(PLACE, act, methods=["POST"])]


@require("configure")
async def review(request: Request) -> Response:
    return await _review(request, "", 200, {})


async def _review(request: Request, fault: str, status: int, typed: Mapping[str, str]) -> Response:
    """What is pending; with what was typed of how to commit it, and the impact of that."""
    client, spans = state_of(request).client, Spans(typed)
    values: dict[str, Any] = {"plan": None, "diff": {"lines": []}, "tag": "", "fault": fault, "outdated": False}
    values |= {"typed": {name: typed.get(name, "") for name in _TYPED}, "faults": _faults(spans, typed)}
    removed = "drain" if typed.get("removed") == "drain" else "cut"
    try:
        shown = await client.call("candidate")
        values |= {"tag": shown["tag"], "outdated": shown["is_outdated"]}
        if shown["is_changed"]:
            values["diff"] = await client.call("candidate_diff")
            values["plan"] = await client.call("candidate_plan", by=identity_of(request).by, removed=removed)
    except (ControlError, ControlUnavailable) as error:
        values["fault"] = "\n".join(filter(None, (fault, why(error))))
    return await page(request, "commit.html", status, **values, confirm_s=CONFIRM_S)


@require("configure")
async def act(request: Request) -> Response:
    form = await request.form()
    what, tag = text_of(form, "do", 20), text_of(form, "tag", 64)
    typed = {name: text_of(form, name, 500) for name in _TYPED}
    client = state_of(request).client
    if what in ("commit", "commit-confirm", LOOK) and (what == LOOK or _faults(Spans(typed), typed)):
        return await _review(request, "", 200 if what == LOOK else 422, typed)
    try:
        if what in ("commit", "commit-confirm"):
            return await _commit(request, client, tag, typed, CONFIRM_S if what == "commit-confirm" else None)
        return await _other(request, client, what)
    except (ControlError, ControlUnavailable) as error:
        if what in ("commit", "commit-confirm"):
            return await _review(request, why(error), 409, typed)
        return back(request, HOME, "bad", why(error))


def _faults(spans: Spans, typed: Mapping[str, str]) -> dict[str, str]:
    if typed.get("cut_after") and typed.get("removed") != "drain":
        return {"cut_after": said("Found a time, expected one only when connections may end by themselves.")}
    return spans.faults


async def _commit(
    request: Request, client: AsyncClient, tag: str, typed: Mapping[str, str], confirm: int | None
) -> Response:
    identity, reason = identity_of(request), typed["reason"]
    difference = await client.call("candidate_diff")
    result = await client.call(
        "candidate_commit",
        by=identity.by,
        timeout=COMMIT_S,
        tag=tag or None,
        reason=reason,
        removed="drain" if typed["removed"] == "drain" else "cut",
        cut_after=Spans(typed).seconds("cut_after"),
        confirm=confirm,
    )
    detail = f"version {result['version']}: {reason}\n" + "\n".join(difference["lines"])
    state_of(request).audit.add(identity.by, "commit", detail, source_of(request))
    impact = result["impact"]["lines"][0] if result["impact"]["lines"] else ""
    text = said("Version %(version)s runs: %(impact)s.", version=result["version"], impact=impact)
    return back(request, HOME, "good", joined(text, said("Look around, then keep it.")) if confirm else text)


async def _other(request: Request, client: AsyncClient, what: str) -> Response:
    identity = identity_of(request)
    if what == "discard":
        await client.call("candidate_discard", by=identity.by)
        text = said("The changes are thrown away.")
    elif what == "confirm":
        result = await client.call("confirm", by=identity.by)
        text = said("Version %(version)s stays.", version=result["version"])
    elif what == "revert":
        result = await client.call("revert", by=identity.by, timeout=COMMIT_S)
        text = said("The version before runs again, as version %(version)s.", version=result["version"])
    else:
        return back(request, HOME, "bad", said("There is nothing to be done of that name."))
    state_of(request).audit.add(identity.by, what, text, source_of(request))
    return back(request, HOME, "good", text)
