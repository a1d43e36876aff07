"""Maintenance > Passwords: the users and what each may do.  Local Configuration > API Keys."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.passwords import why_weak
from lbfast.web.render import back, page
from lbfast.web.roles import MEANING, ROLES
from lbfast.web.said import said
from lbfast.web.state import WebState
from lbfast.web.users import UserFault
from lbfast.web.vendor import VendorApi

USERS: Final = "/lbadmin/maintenance/passwords"
KEYS: Final = "/lbadmin/local/keys"
MOST_DAYS: Final = 3_650


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(USERS, users_page, methods=["GET"]),
        Route(USERS, change_user, methods=["POST"]),
        Route(KEYS, keys_page, methods=["GET"]),
        Route(KEYS, change_key, methods=["POST"]),
    ]


@require("configure")
async def users_page(request: Request) -> Response:
    state = state_of(request)
    return await page(request, "users.html", users=state.users.all(), roles=ROLES, meaning=MEANING)


@require("configure")
async def change_user(request: Request) -> Response:
    form = await request.form()
    state, identity = state_of(request), identity_of(request)
    what, name, role = (text_of(form, key, 64) for key in ("do", "user", "role"))
    password = str(form.get("password") or "")[:300]
    try:
        text = await _do(state, what, name, role, password)
    except (UserFault, ValueError) as fault:
        return back(request, USERS, "bad", str(fault))
    state.audit.add(identity.by, f"user {what}", f"{name} {role}".strip(), source_of(request))
    return back(request, USERS, "good", text)


async def _do(state: WebState, what: str, name: str, role: str, password: str) -> str:
    if what in ("add", "password"):
        if weak := why_weak(password, name):
            raise UserFault(weak)
        if what == "add":
            state.users.add(name, role)
        async with state.hashing:
            await asyncio.to_thread(state.users.set_password, name, password)
        if what == "add":
            return said("%(name)s may log in.", name=name)
        return said("The password of %(name)s is set.", name=name)
    if what == "role":
        state.users.set_role(name, role)
        return said("%(name)s has the role %(role)s.", name=name, role=role)
    if what == "totp-off":
        state.users.set_totp(name, None)
        return said("The second factor of %(name)s is off.", name=name)
    if what == "remove":
        state.users.remove(name)
        return said("%(name)s is removed.", name=name)
    raise UserFault(said("There is nothing to be done of that name."))


@require("configure")
async def keys_page(request: Request) -> Response:
    return await _show_keys(request)


async def _show_keys(request: Request, secret: str = "") -> Response:
    state = state_of(request)
    switch = VendorApi(state.store).switch()
    return await page(
        request, "keys.html", keys=state.keys.all(), roles=ROLES, meaning=MEANING, secret=secret, switch=switch
    )


@require("configure")
async def change_key(request: Request) -> Response:
    form = await request.form()
    what = text_of(form, "do", 20)
    if what == "revoke":
        return _revoke(request, text_of(form, "id", 20))
    if what in ("enable", "disable"):
        return _switch(request, is_on=what == "enable")
    state, identity = state_of(request), identity_of(request)
    days = text_of(form, "days", 5)
    if days and not (days.isascii() and days.isdigit() and 0 < int(days) <= MOST_DAYS):
        return back(
            request,
            KEYS,
            "bad",
            said(
                "Days: found %(days)s, expected 1 to %(most)s, or nothing for no end.", days=repr(days), most=MOST_DAYS
            ),
        )
    lives = timedelta(days=int(days)) if days else None
    try:
        key, secret = state.keys.create(text_of(form, "role", 20), identity.by, text_of(form, "label", 100), lives)
    except ValueError as fault:
        return back(request, KEYS, "bad", str(fault))
    state.audit.add(identity.by, "apikey create", f"key {key.id}, role {key.role}", source_of(request))
    return await _show_keys(request, secret)


def _revoke(request: Request, name: str) -> Response:
    state = state_of(request)
    if state.keys.revoke(name):
        state.audit.add(identity_of(request).by, "apikey revoke", f"key {name}", source_of(request))
    return back(request, KEYS, "good", said("Key %(name)s is revoked.", name=name))


def _switch(request: Request, *, is_on: bool) -> Response:
    state, by = state_of(request), identity_of(request).by
    VendorApi(state.store).set(is_on, by)
    state.audit.add(by, f"api v2 {'enabled' if is_on else 'disabled'}", source=source_of(request))
    text = said("The vendor's API is on.") if is_on else said("The vendor's API is off.")
    return back(request, KEYS, "good", text)
