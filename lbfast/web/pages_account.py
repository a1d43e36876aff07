"""A user's own page: password, second factor, sessions."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web import totp
from lbfast.web.ask import text_of
from lbfast.web.auth import LOGIN, identity_of, require, source_of, state_of
from lbfast.web.passwords import why_weak
from lbfast.web.render import back, page
from lbfast.web.said import said
from lbfast.web.state import MOST_NOTES, WebState

PLACE: Final = "/lbadmin/account"


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(PLACE, account, methods=["GET"]),
        Route(PLACE, change, methods=["POST"]),
        Route(PLACE + "/totp.svg", picture, methods=["GET"]),
    ]


@require("report")
async def account(request: Request) -> Response:
    state, identity = state_of(request), identity_of(request)
    user = state.users.get(identity.name)
    secret = _offer(request) if user.totp is None else ""
    sessions = state.sessions.of_user(user.name)
    return await page(request, "account.html", user=user, secret=secret, sessions=sessions, own=identity.digest)


@require("report")
async def picture(request: Request) -> Response:
    address = totp.address_of(_offer(request), identity_of(request).name, state_of(request).host)
    return Response(totp.picture(address), media_type="image/svg+xml")


@require("report")
async def change(request: Request) -> Response:
    what = text_of(await request.form(), "do", 20)
    makers = {"password": _password, "totp-on": _totp_on, "totp-off": _totp_off, "end": _end_others}
    maker = makers.get(what)
    if maker is None:
        return back(request, PLACE, "bad", said("There is nothing to be done of that name."))
    return await maker(request)


def _offer(request: Request) -> str:
    """The secret of a second factor that is not proven yet; the same for as long as the session has not used it."""
    offers = state_of(request).offers
    secret = offers.setdefault(identity_of(request).digest, totp.new_secret())
    while len(offers) > MOST_NOTES:
        offers.popitem(last=False)
    return secret


async def _password(request: Request) -> Response:
    form = await request.form()
    state, identity = state_of(request), identity_of(request)
    old, new, again = (str(form.get(name) or "")[:300] for name in ("old", "password", "again"))
    if not await _is_own(request, old):
        return back(request, PLACE, "bad", said("The old password is wrong."))
    if new != again:
        return back(request, PLACE, "bad", said("The two new passwords differ."))
    if weak := why_weak(new, identity.name):
        return back(request, PLACE, "bad", weak)
    async with state.hashing:
        await asyncio.to_thread(state.users.set_password, identity.name, new)
    state.audit.add(identity.by, "password changed", source=source_of(request))
    return back(request, LOGIN)


async def _is_own(request: Request, password: str) -> bool:
    """Whether it is the password of whoever asks; guessing is slowed down here too."""
    state, identity, source = state_of(request), identity_of(request), source_of(request)
    if state.throttle.wait(identity.name, source) > 0:
        return False
    async with state.hashing:
        is_right = await asyncio.to_thread(state.users.check_password, identity.name, password)
    if not is_right:
        state.throttle.failed(identity.name, source)
    return is_right


async def _totp_on(request: Request) -> Response:
    form = await request.form()
    state, identity = state_of(request), identity_of(request)
    secret = _offer(request)
    step = totp.step_of(secret, text_of(form, "code", 10), state.clock().timestamp())
    if step is None:
        return back(request, PLACE, "bad", said("This code is wrong. Is the clock of the phone right?"))
    state.users.set_totp(identity.name, secret)
    state.users.use_totp(identity.name, step)
    state.offers.pop(identity.digest, None)
    state.audit.add(identity.by, "second factor on", source=source_of(request))
    return back(request, PLACE, "good", said("From the next login on, a code of the phone is asked for."))


async def _totp_off(request: Request) -> Response:
    form = await request.form()
    state, identity = state_of(request), identity_of(request)
    if not await _is_own(request, str(form.get("old") or "")[:300]):
        return back(request, PLACE, "bad", said("The password is wrong."))
    state.users.set_totp(identity.name, None)
    state.audit.add(identity.by, "second factor off", source=source_of(request))
    return back(request, PLACE, "good", said("The second factor is off."))


async def _end_others(request: Request) -> Response:
    state, identity = state_of(request), identity_of(request)
    state.sessions.end_others(identity.name, identity.digest)
    return back(request, PLACE, "good", said("All other sessions have ended."))
