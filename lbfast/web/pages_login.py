"""Logging in and out, the one-time setup, and the choice of light or dark."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.web import totp
from lbfast.web.auth import (
    HOME,
    LOGIN,
    cookie_name,
    identify,
    identity_of,
    is_foreign,
    public,
    require,
    source_of,
    state_of,
)
from lbfast.web.passwords import why_weak
from lbfast.web.render import LANGUAGE_COOKIE, THEMES, bare_page, error_page
from lbfast.web.said import said
from lbfast.web.sessions import ABSOLUTE_S
from lbfast.web.state import WebState
from lbfast.web.users import FIRST_USER

SETUP: Final = "/lbadmin/setup"
_WRONG: Final = said("User, password or code is wrong.")


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(LOGIN, login_form, methods=["GET"]),
        Route(LOGIN, login, methods=["POST"]),
        Route("/lbadmin/logout", logout, methods=["POST"]),
        Route(SETUP, setup_form, methods=["GET"]),
        Route(SETUP, setup, methods=["POST"]),
        Route("/lbadmin/theme", theme, methods=["POST"]),
    ]


@public
async def login_form(request: Request) -> Response:
    if state_of(request).users.needs_setup():
        return RedirectResponse(SETUP, 303)
    if identify(request) is not None:
        return RedirectResponse(HOME, 303)
    return bare_page(
        request, "login.html", fault="", user=FIRST_USER, next=_safe_next(request.query_params.get("next"))
    )


@public
async def login(request: Request) -> Response:
    state, source = state_of(request), source_of(request)
    if is_foreign(request):
        return error_page(request, 403, said("This login form was sent by another site."))
    form = await request.form(max_files=0, max_fields=10)
    name, password, code = (str(form.get(key) or "")[:300] for key in ("user", "password", "code"))
    place = _safe_next(str(form.get("next") or ""))
    name = name.strip()[:64]
    wait = state.throttle.wait(name, source)
    if wait > 0:
        fault = said(
            "Too many wrong attempts. Try again in %(wait)s s, or use the console: lbfast passwd.", wait=round(wait) + 1
        )
        return _again(request, name, place, fault, 429)
    if not await _is_right(state, name, password, code):
        state.throttle.failed(name, source)
        state.audit.add(name, "login failed", source=source)
        return _again(request, name, place, _WRONG, 401)
    state.throttle.succeeded(name, source)
    state.audit.add(name, "login", source=source)
    return _begin(request, name, place)


async def _is_right(state: WebState, name: str, password: str, code: str) -> bool:
    async with state.hashing:
        is_known = await asyncio.to_thread(state.users.check_password, name, password)
    user = state.users.find(name)
    if not is_known or user is None:
        return False
    if user.totp is None:
        return True
    step = totp.step_of(user.totp, code, state.clock().timestamp())
    return step is not None and state.users.use_totp(name, step)


def _again(request: Request, name: str, place: str, fault: str, status: int) -> Response:
    return bare_page(request, "login.html", status, fault=fault, user=name, next=place)


def _begin(request: Request, name: str, place: str) -> Response:
    """A new session, whatever the browser had before: a cookie that somebody planted is worth nothing."""
    state = state_of(request)
    before = state.sessions.find(request.cookies.get(cookie_name(state), ""))
    if before is not None:
        state.sessions.end(before.digest)
    token = state.sessions.begin(name, source_of(request), request.headers.get("user-agent", ""))
    response = RedirectResponse(place or HOME, 303)
    response.set_cookie(
        cookie_name(state),
        token,
        max_age=ABSOLUTE_S,
        path="/",
        secure=state.settings.tls,
        httponly=True,
        samesite="strict",
    )
    return response


@require("report")
async def logout(request: Request) -> Response:
    state, identity = state_of(request), identity_of(request)
    state.sessions.end(identity.digest)
    state.audit.add(identity.by, "logout", source=source_of(request))
    response = RedirectResponse(LOGIN, 303)
    response.delete_cookie(cookie_name(state), path="/", secure=state.settings.tls, httponly=True, samesite="strict")
    return response


@public
async def setup_form(request: Request) -> Response:
    if not state_of(request).users.needs_setup():
        return RedirectResponse(LOGIN, 303)
    return bare_page(request, "setup.html", fault="", user=FIRST_USER, code=request.query_params.get("code", "")[:64])


@public
async def setup(request: Request) -> Response:
    """The first password, for whoever has the code of the console."""
    state, source = state_of(request), source_of(request)
    if is_foreign(request):
        return error_page(request, 403, said("This form was sent by another site."))
    if not state.users.needs_setup():
        return RedirectResponse(LOGIN, 303)
    form = await request.form(max_files=0, max_fields=10)
    code, password, again = (str(form.get(key) or "")[:300] for key in ("code", "password", "again"))
    fault = _setup_fault(state, source, code, password, again)
    if fault:
        return bare_page(request, "setup.html", 400, fault=fault, user=FIRST_USER, code=code[:64])
    async with state.hashing:
        if not state.setup.use(code):
            return bare_page(request, "setup.html", 400, fault=_USED, user=FIRST_USER, code="")
        await asyncio.to_thread(state.users.set_password, FIRST_USER, password)
    state.audit.add(FIRST_USER, "setup", "first password set with the code of the console", source)
    return _begin(request, FIRST_USER, HOME)


_USED: Final = said("This code is not valid, or not any more. The console shows it: lbfast passwd --setup.")


def _setup_fault(state: WebState, source: str, code: str, password: str, again: str) -> str:
    wait = state.throttle.wait("setup", source)
    if wait > 0:
        return said("Too many wrong codes. Try again in %(wait)s s.", wait=round(wait) + 1)
    if not state.setup.is_valid(code):
        state.throttle.failed("setup", source)
        return _USED
    if password != again:
        return said("The two passwords differ.")
    return why_weak(password, FIRST_USER) or ""


@public
async def theme(request: Request) -> Response:
    """Colours and language, each kept in a cookie of its own, so that a page is drawn right at once."""
    if is_foreign(request):
        return error_page(request, 403, said("This was sent by another site."))
    form = await request.form(max_files=0, max_fields=10)
    response = RedirectResponse(_safe_next(str(form.get("next") or "")) or HOME, 303)
    codes = [code for code, _ in state_of(request).languages.choices]
    for cookie, name, allowed in (("lbfast-theme", "theme", THEMES), (LANGUAGE_COOKIE, "language", codes)):
        if (chosen := str(form.get(name) or "")) in allowed:
            response.set_cookie(cookie, chosen, max_age=31_536_000, path="/lbadmin/", samesite="strict", httponly=True)
    return response


def _safe_next(place: str | None) -> str:
    """A page of ours, or nothing: never another site."""
    place = place or ""
    is_ours = place.startswith("/lbadmin/") and "\\" not in place and "//" not in place and place.isprintable()
    return place if is_ours else ""
