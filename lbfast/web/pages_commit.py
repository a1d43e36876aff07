"""Commit changes: what is pending, its difference and impact; commit, commit with a timer, discard, confirm."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import HOME, identity_of, require, source_of, state_of
from lbfast.web.client import AsyncClient, ControlError, ControlUnavailable
from lbfast.web.pages_history import COMMIT_S
from lbfast.web.render import back, page, why
from lbfast.web.state import WebState

PLACE: Final = "/lbadmin/commit"
CONFIRM_S: Final = 300


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, review, methods=["GET"]), Route(PLACE, act, methods=["POST"])]


@require("configure")
async def review(request: Request) -> Response:
    return await _review(request, "", 200)


async def _review(request: Request, fault: str, status: int) -> Response:
    client = state_of(request).client
    values: dict[str, Any] = {"plan": None, "diff": {"lines": []}, "tag": "", "fault": fault, "outdated": False}
    try:
        shown = await client.call("candidate")
        values |= {"tag": shown["tag"], "outdated": shown["is_outdated"]}
        if shown["is_changed"]:
            values["diff"] = await client.call("candidate_diff")
            values["plan"] = await client.call("candidate_plan", by=identity_of(request).by)
    except (ControlError, ControlUnavailable) as error:
        values["fault"] = "\n".join(filter(None, (fault, why(error))))
    return await page(request, "commit.html", status, **values, confirm_s=CONFIRM_S)


@require("configure")
async def act(request: Request) -> Response:
    form = await request.form()
    what, tag, reason = text_of(form, "do", 20), text_of(form, "tag", 64), text_of(form, "reason", 500)
    removed = "drain" if text_of(form, "removed", 10) == "drain" else "cut"
    client = state_of(request).client
    try:
        if what in ("commit", "commit-confirm"):
            return await _commit(request, client, tag, reason, removed, CONFIRM_S if what == "commit-confirm" else None)
        return await _other(request, client, what)
    except (ControlError, ControlUnavailable) as error:
        if what in ("commit", "commit-confirm"):
            return await _review(request, why(error), 409)
        return back(request, HOME, "bad", why(error))


async def _commit(
    request: Request, client: AsyncClient, tag: str, reason: str, removed: str, confirm: int | None
) -> Response:
    identity = identity_of(request)
    difference = await client.call("candidate_diff")
    result = await client.call(
        "candidate_commit",
        by=identity.by,
        timeout=COMMIT_S,
        tag=tag or None,
        reason=reason,
        removed=removed,
        confirm=confirm,
    )
    detail = f"version {result['version']}: {reason}\n" + "\n".join(difference["lines"])
    state_of(request).audit.add(identity.by, "commit", detail, source_of(request))
    impact = result["impact"]["lines"][0] if result["impact"]["lines"] else ""
    text = f"Version {result['version']} runs: {impact}."
    return back(request, HOME, "good", text + (" Look around, then keep it." if confirm else ""))


async def _other(request: Request, client: AsyncClient, what: str) -> Response:
    identity = identity_of(request)
    if what == "discard":
        await client.call("candidate_discard", by=identity.by)
        text = "The changes are thrown away."
    elif what == "confirm":
        result = await client.call("confirm", by=identity.by)
        text = f"Version {result['version']} stays."
    elif what == "revert":
        result = await client.call("revert", by=identity.by, timeout=COMMIT_S)
        text = f"The version before runs again, as version {result['version']}."
    else:
        return back(request, HOME, "bad", "There is nothing to be done of that name.")
    state_of(request).audit.add(identity.by, what, text, source_of(request))
    return back(request, HOME, "good", text)
