"""Cluster Configuration > High-Availability Configuration: the pair made, shown, handed over and broken."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.pair import STANDALONE, Status, judge, status_of
from lbfast.web.render import back, fragment, page, why
from lbfast.web.roles import may
from lbfast.web.said import joined, said
from lbfast.web.state import WebState

PLACE: Final = "/lbadmin/cluster/ha"
READINESS: Final = "/lbadmin/overview/readiness"
ACT_S: Final = 100.0


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(PLACE, show, methods=["GET"]),
        Route(PLACE, act, methods=["POST"]),
        Route(READINESS, readiness, methods=["GET"]),
    ]


@require("report")
async def show(request: Request) -> Response:
    job = state_of(request).pairing
    fault, outcome = job.take() if may(identity_of(request).role, "configure") else ("", None)
    typed = {"local": job.local, "peer": job.peer} if fault else {}
    return await _show(request, fault, 200, typed, outcome)


async def _show(
    request: Request, fault: str, status: int, typed: dict[str, str], outcome: Status | None = None
) -> Response:
    state = state_of(request)
    job = state.pairing
    pair: Status | None = None
    try:
        pair = await status_of(state.client)
    except (ControlError, ControlUnavailable) as error:
        fault = fault or why(error)
    values = {"local": _own_address(request), "peer": "", "path_local": "", "path_peer": "", **typed}
    is_paired = pair is not None and pair["role"] != STANDALONE
    ready = judge(pair) if pair is not None and is_paired else None
    return await page(
        request,
        "ha.html",
        status,
        pair=pair,
        is_paired=is_paired,
        ready=ready,
        job=job if job.is_running else None,
        values=values,
        fault=fault,
        outcome=outcome,
    )


def _own_address(request: Request) -> str:
    """The address at which this browser reaches the box is the likeliest one that its peer reaches."""
    server = request.scope.get("server")
    found = str(server[0]) if server else ""
    return "" if found.startswith("127.") or found in ("::1", "0.0.0.0", "::") else found


@require("operate")
async def act(request: Request) -> Response:
    form = await request.form()
    what = text_of(form, "do", 20)
    if what == "takeover":
        return await _takeover(request, text_of(form, "reason", 500), is_forced=bool(form.get("force")))
    if what not in ("pair", "unpair", "maintenance-on", "maintenance-off", "path-add", "path-remove"):
        return back(request, PLACE, "bad", said("There is nothing to be done of that name."))
    if not may(identity_of(request).role, "configure"):
        return back(request, PLACE, "bad", said("Your role may not do this."))
    if what == "pair":
        return await _pair(request, form)
    if what == "unpair":
        return await _unpair(request, is_forced=bool(form.get("force")))
    if what.startswith("path-"):
        return await _path(request, what.removeprefix("path-"), text_of(form, "local", 64), text_of(form, "peer", 64))
    return await _maintain(request, text_of(form, "reason", 500), is_on=what == "maintenance-on")


async def _pair(request: Request, form: Any) -> Response:
    """Begins; the page tells how it goes on."""
    state, identity = state_of(request), identity_of(request)
    values = {"local": text_of(form, "local", 64), "peer": text_of(form, "peer", 64)}
    password = str(form.get("password") or "")[:1000]
    if state.pairing.is_running:
        return back(request, PLACE, "bad", said("A pairing is under way already."))
    missing = [
        title
        for title, value in (
            (said("Local IP address"), values["local"]),
            (said("IP address of new peer"), values["peer"]),
            (said("Password for loadbalancer user on peer"), password),
        )
        if not value
    ]
    if missing:
        return await _show(request, said("Still empty: %(fields)s.", fields=joined(*missing, gap=", ")), 422, values)
    state.audit.add(identity.by, "pair", f"{values['local']} with {values['peer']}", source_of(request))
    state.pairing.start(
        state.client, identity.by, values["local"], values["peer"], password, overwrite=bool(form.get("overwrite"))
    )
    return back(request, PLACE)


async def _unpair(request: Request, *, is_forced: bool) -> Response:
    state, identity = state_of(request), identity_of(request)
    try:
        done = await state.client.call("ha_unpair", identity.by, ACT_S, force=is_forced)
    except (ControlError, ControlUnavailable) as error:
        return back(request, PLACE, "bad", _in_the_browser(why(error)))
    state.audit.add(identity.by, "unpair", done["peer"], source_of(request))
    told = said("It was told.") if done["peer_told"] else said("It could NOT be told: break the pair there, too.")
    return back(
        request, PLACE, "good", joined(said("The clustered pair with %(peer)s is broken.", peer=done["peer"]), told)
    )


async def _takeover(request: Request, reason: str, *, is_forced: bool) -> Response:
    state, identity = state_of(request), identity_of(request)
    try:
        done = await state.client.call("ha_takeover", identity.by, ACT_S, reason=reason, force=is_forced)
    except (ControlError, ControlUnavailable) as error:
        return back(request, PLACE, "bad", _in_the_browser(why(error)))
    state.audit.add(identity.by, "takeover", reason, source_of(request))
    return back(
        request,
        PLACE,
        "good",
        said("This box is %(state)s now; it took %(took_ms)s ms.", state=done["state"], took_ms=done["took_ms"]),
    )


async def _maintain(request: Request, reason: str, *, is_on: bool) -> Response:
    state, identity = state_of(request), identity_of(request)
    try:
        await state.client.call("ha_maintenance", identity.by, on=is_on, reason=reason)
    except (ControlError, ControlUnavailable) as error:
        return back(request, PLACE, "bad", why(error))
    state.audit.add(identity.by, f"maintenance {'on' if is_on else 'off'}", reason, source_of(request))
    return back(request, PLACE, "good", said("Maintenance is on.") if is_on else said("Maintenance is over."))


async def _path(request: Request, what: str, local: str, peer: str) -> Response:
    """Of this box; what was typed stays when it is refused."""
    state, identity = state_of(request), identity_of(request)
    try:
        await state.client.call("ha_path", identity.by, what=what, local=local, peer=peer)
    except (ControlError, ControlUnavailable) as error:
        return await _show(request, why(error), 422, {"path_local": local, "path_peer": peer})
    state.audit.add(
        identity.by,
        f"heartbeat path {'added' if what == 'add' else 'removed'}",
        f"{local} - {peer}",
        source_of(request),
    )
    done = (
        said("The heartbeat path %(local)s - %(peer)s is added on this box.", local=local, peer=peer)
        if what == "add"
        else said("The heartbeat path %(local)s - %(peer)s is removed on this box.", local=local, peer=peer)
    )
    return back(request, PLACE, "good", joined(done, said("Do the same on the peer.")))


def _in_the_browser(text: str) -> str:
    """Options of the command line are boxes to tick here."""
    return text.replace("--force", "“Also when the check objects”")


@require("report", quiet=True)
async def readiness(request: Request) -> Response:
    """The panel of the overview alone; empty without a peer."""
    try:
        pair = await status_of(state_of(request).client)
    except (ControlError, ControlUnavailable) as error:
        return HTMLResponse(fragment(request, "readiness.html", pair=None, ready=None, fault=why(error)))
    ready = judge(pair) if pair["role"] != STANDALONE else None
    return HTMLResponse(fragment(request, "readiness.html", pair=pair, ready=ready, fault=""))
