"""POST /api/v2/ as the vendor's: Basic authentication and a key, actions in, an entry for each of them out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.control.lbcli_run import API_SWITCH, MOST_ACTIONS, role_of, run
from lbfast.web.api_common import LONG_S
from lbfast.web.auth import public, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.roles import may
from lbfast.web.state import WebState
from lbfast.web.users import UserFault
from lbfast.web.vendor import ON_AGAIN, VendorApi, carry_out

KEY: Final = "x-lb-apikey"


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route("/api/v2/", post, methods=["POST"]), Route("/api/v2", post, methods=["POST"])]


@public
async def post(request: Request) -> Response:
    """Not for cookies: whoever posts shows password and key each time, so no other site can post for them."""
    if not VendorApi(state_of(request).store).switch().is_on:  # and then nobody can try passwords here
        return _answer([{"action": "", "status": "error", "message": f"this API is switched off; {ON_AGAIN}"}], 403)
    who = await _identify(request)
    if isinstance(who, Response):
        return who
    name, roles = who
    try:
        actions = json.loads(await request.body())["lbcli"]
        if not isinstance(actions, list) or not 1 <= len(actions) <= MOST_ACTIONS:
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        return _answer(
            [{"action": "", "status": "error", "message": f'expected {{"lbcli": [1 to {MOST_ACTIONS} actions]}}'}], 400
        )
    refused = _first_refused(actions, roles)
    if refused:
        return _answer([{"action": _name(action), "status": "error", "message": refused} for action in actions], 403)
    try:
        done, entries = await _carry_out(state_of(request), actions, name, source_of(request))
    except ControlUnavailable as error:
        return _answer([{"action": _name(it), "status": "error", "message": str(error)} for it in actions], 503)
    return _answer(entries, 200 if done else 400)


async def _carry_out(
    state: WebState, actions: Sequence[Any], by: str, source: str
) -> tuple[bool, list[dict[str, Any]]]:
    steps = run(actions)
    try:
        question = next(steps)
        while True:
            try:
                if question.verb == API_SWITCH:
                    answer = _switch(state, question.args, by, source)
                else:
                    answer = await state.client.call(question.verb, by, LONG_S, **question.args)
            except ControlError as error:
                question = steps.throw(error)
            else:
                question = steps.send(answer)
    except StopIteration as end:
        outcome: tuple[bool, list[dict[str, Any]]] = end.value
        return outcome


def _switch(state: WebState, options: dict[str, Any], by: str, source: str) -> dict[str, Any]:
    try:
        return carry_out(state.store, state.audit, options, by, source, is_console=False)
    except UserFault as fault:
        raise ControlError("refused", str(fault)) from None


async def _identify(request: Request) -> tuple[str, tuple[str, str]] | Response:
    """Who it is and the roles of user and key, both of which must allow an action; or the refusal."""
    state, source = state_of(request), source_of(request)
    name, password = _basic(request.headers.get("authorization", ""))
    wait = state.throttle.wait(name, source)
    if wait > 0:
        return _unauthorized(f"too many wrong attempts; try again in {round(wait) + 1} s")
    key = state.keys.check(_decoded(request.headers.get(KEY, "")))
    is_right = False
    if name and key is not None:  # without a key nobody makes us hash
        async with state.hashing:
            is_right = await asyncio.to_thread(state.users.check_password, name, password)
    user = state.users.find(name)
    if key is None or not is_right or user is None:
        if not name:
            return _unauthorized("show user and password (Basic) and the key (X-LB-APIKEY, in base64)")
        state.throttle.failed(name, source)
        state.audit.add(name, "api v2 login failed", source=source)
        return _unauthorized("user, password or key is wrong")
    state.throttle.succeeded(name, source)
    return f"{user.name} (key {key.id})", (user.role, key.role)


def _basic(header: str) -> tuple[str, str]:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return "", ""
    name, _, password = _decoded(value).partition(":")
    return name[:64], password[:300]


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text.strip(), validate=True).decode("utf-8")
    except (ValueError, binascii.Error):
        return ""


def _first_refused(actions: Sequence[Any], roles: tuple[str, str]) -> str:
    for action in actions:
        needed = role_of(_name(action), str(action.get("function", "")) if isinstance(action, dict) else "")
        if not all(may(role, needed) for role in roles):
            return f"{_name(action)} needs the role {needed}; the user has {roles[0]}, the key has {roles[1]}"
    return ""


def _name(action: Any) -> str:
    return str(action.get("action", ""))[:60] if isinstance(action, dict) else ""


def _unauthorized(message: str) -> Response:
    entry = {"action": "", "status": "error", "message": message}
    response = _answer([entry], 401)
    response.headers["www-authenticate"] = 'Basic realm="lbfast"'
    return response


def _answer(entries: list[dict[str, Any]], status: int) -> Response:
    """The vendor's form, its spelling too: clients read exactly that."""
    return JSONResponse({"lbapi": [{"itteration": entries}]}, status)
