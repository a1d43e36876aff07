"""Who asks, and whether they may: the one gate in front of every page and every call of the API.

A handler says what it needs, ``@require("operate")``; routes without it are refused by ``app.build_app``.
A browser shows its session's cookie, and for whatever changes something also the session's token and an origin that is
ours.  A program shows an API key.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from lbfast.web.keys import PREFIX
from lbfast.web.roles import may
from lbfast.web.said import said
from lbfast.web.state import WebState

HOME: Final = "/lbadmin/"
LOGIN: Final = "/lbadmin/login"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
NOBODY: Final = "nobody"  # of routes that everybody may use

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Identity:
    """A user in a browser, or the holder of an API key.  ``by`` is what logs and histories call them."""

    name: str
    role: str
    by: str
    digest: str = ""  # of the browser's session; empty for a key
    csrf: str = ""
    key: str = ""  # id of the API key; empty for a browser


def state_of(request: Request) -> WebState:
    state: WebState = request.app.state.web
    return state


def identity_of(request: Request) -> Identity:
    """Of a request that has passed ``require``."""
    identity: Identity = request.state.identity
    return identity


def source_of(request: Request) -> str:
    """The address that the request came from."""
    return request.client.host if request.client else ""


def cookie_name(state: WebState) -> str:
    """``__Host-`` makes browsers refuse one that another host or plain HTTP has set."""
    return "__Host-lbfast" if state.settings.tls else "lbfast"


def require(role: str, *, csrf: bool = True, quiet: bool = False) -> Callable[[Handler], Handler]:
    """Decorates a handler: only for ``role`` and those above it.

    ``csrf=False`` is for handlers that read the body by themselves and call ``is_forged``;
    ``quiet`` requests (live updates) do not keep a session alive.
    """

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def guarded(request: Request) -> Response:
            refusal = await check(request, role, csrf=csrf, quiet=quiet)
            return refusal or await handler(request)

        guarded.role = role  # type: ignore[attr-defined]
        return guarded

    return decorate


def public(handler: Handler) -> Handler:
    """Decorates a handler that everybody may use; it must say so."""
    handler.role = NOBODY  # type: ignore[attr-defined]
    return handler


async def check(request: Request, role: str, *, csrf: bool = True, quiet: bool = False) -> Response | None:
    """None when the request may go on, with ``request.state.identity`` set; else the refusal."""
    identity = identify(request, quiet=quiet)
    if identity is None:
        return _who_are_you(request)
    request.state.identity = identity
    if request.method not in SAFE and identity.digest and csrf and await is_forged(request, identity):
        return refuse(
            request, 403, said("The form is too old or comes from another site. Go back, load the page, try again.")
        )
    if not may(identity.role, role):
        return refuse(
            request,
            403,
            said(
                "This needs the role %(role)s; %(name)s has the role %(own)s.",
                role=role,
                name=identity.name,
                own=identity.role,
            ),
        )
    return None


def identify(request: Request, *, quiet: bool = False) -> Identity | None:
    """By API key if one is shown, else by cookie."""
    state = state_of(request)
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" or PREFIX in request.headers.get("x-api-key", ""):
        return identify_key(state, secret.strip() or request.headers.get("x-api-key", "").strip())
    session = state.sessions.find(request.cookies.get(cookie_name(state), ""), touch=not quiet)
    user = state.users.find(session.user) if session else None
    if session is None or user is None:
        return None
    return Identity(user.name, user.role, user.name, session.digest, session.csrf)


def identify_key(state: WebState, secret: str) -> Identity | None:
    """The holder of an API key."""
    key = state.keys.check(secret)
    if key is None:
        return None
    name = f"key {key.id}" + (f" ({key.label})" if key.label else "")
    return Identity(name, key.role, name, key=key.id)


async def is_forged(request: Request, identity: Identity) -> bool:
    """Whether a request that changes something was not sent by one of our own pages."""
    if is_foreign(request):
        return True
    token = request.headers.get("x-csrf-token", "")
    if not token and request.headers.get("content-type", "").startswith(("application/x-www-form", "multipart/form")):
        value = (await request.form(max_files=4, max_fields=500)).get("csrf")
        token = value if isinstance(value, str) else ""
    return not hmac.compare_digest(token.encode(), identity.csrf.encode())


def is_foreign(request: Request) -> bool:
    """Whether the browser says that another site's page sent this."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")


def refuse(request: Request, status: int, message: str) -> Response:
    """In the manner of whoever asks: a problem document for programs, a page for people."""
    if is_api(request):
        titles = {401: "Unauthorized", 403: "Forbidden"}
        body = {"type": "about:blank", "title": titles.get(status, "Refused"), "status": status, "detail": message}
        headers = {"www-authenticate": "Bearer"} if status == 401 else None
        return JSONResponse(body, status, headers, media_type="application/problem+json")
    from lbfast.web.render import error_page  # it needs the identity from here

    return error_page(request, status, message)


def is_api(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/metrics"))


def _who_are_you(request: Request) -> Response:
    if is_api(request):
        return refuse(request, 401, said("Show an API key: Authorization: Bearer KEY."))
    if request.headers.get("accept", "").startswith("text/event-stream"):
        return Response(status_code=401)
    if state_of(request).users.needs_setup():
        return RedirectResponse("/lbadmin/setup", 303)
    place = request.url.path if request.method in SAFE else HOME
    query = f"?{request.url.query}" if request.url.query and request.method in SAFE else ""
    wanted = "" if place == HOME else "?next=" + quote(place + query, safe="/")
    return RedirectResponse(LOGIN + wanted, 303)
