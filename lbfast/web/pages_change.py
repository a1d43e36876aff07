"""Drain, halt and online of a real server: what it would mean first, how it is to end, then the deed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import HOME, identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.drain_plan import DrainPlan, plan_drain
from lbfast.web.render import back, page, why
from lbfast.web.said import counted, said
from lbfast.web.spans import Spans
from lbfast.web.state import WebState

PLACE: Final = "/lbadmin/overview/change"
VERBS: Final = ("drain", "halt", "online")
FORECAST: Final = "forecast"  # the button of the drain dialog that only looks
_ENDS: Final = ("deadline", "stagger")


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, change_form, methods=["GET"]), Route(PLACE, change, methods=["POST"])]


@require("operate")
async def change_form(request: Request) -> Response:
    """What a drain, a halt or its end would mean, before it is done."""
    verb, service, real = _asked(request.query_params)
    if verb not in VERBS:
        return back(request, HOME, "bad", said("There is nothing to be done of that name."))
    return await _show(request, verb, service, real, {}, {})


async def _show(
    request: Request, verb: str, service: str, real: str, typed: Mapping[str, str], faults: Mapping[str, str]
) -> Response:
    """The dialog; with what was typed, and a word at each field that is wrong."""
    client = state_of(request).client
    lines: list[str] = []
    try:
        plan = await foresee(state_of(request), service, real)
        if verb == "drain" and not faults:
            lines = (await client.call("drain_plan", service=service, real=real, **_end_of(Spans(typed), typed)))[
                "lines"
            ]
    except ControlError as error:
        if error.code != "bad_argument":
            return back(request, HOME, "bad", why(error))
        faults = {"deadline": error.message}
    except ControlUnavailable as error:
        return back(request, HOME, "bad", why(error))
    return await page(
        request,
        "change.html",
        422 if faults else 200,
        verb=verb,
        service=service,
        real=real,
        plan=plan,
        lines=lines,
        typed={name: typed.get(name, "") for name in ("deadline", "stagger", "cut", "reason")},
        faults=faults,
    )


@require("operate")
async def change(request: Request) -> Response:
    form = await request.form()
    verb, service, real = _asked(form)
    only_looks = verb == FORECAST
    verb = "drain" if only_looks else verb
    if verb not in VERBS:
        return back(request, HOME, "bad", said("There is nothing to be done of that name."))
    typed = {name: text_of(form, name, 500) for name in ("deadline", "stagger", "cut", "reason")}
    spans = Spans(typed)
    end = _end_of(spans, typed) if verb == "drain" else {}
    if spans.faults or only_looks:
        return await _show(request, verb, service, real, typed, spans.faults)
    try:
        result = await state_of(request).client.call(
            verb, by=identity_of(request).by, service=service, real=real, reason=typed["reason"], **end
        )
    except (ControlError, ControlUnavailable) as error:
        if verb == "drain" and isinstance(error, ControlError) and error.code == "bad_argument":
            return await _show(request, verb, service, real, typed, {"deadline": error.message})
        return back(request, HOME, "bad", why(error))
    _note(request, verb, {"service": service, "real": real, "reason": typed["reason"], **end})
    return back(request, HOME, "good", done_text(verb, service, real, result["connections"]))


def done_text(verb: str, service: str, real: str, left: int) -> str:
    """``left``: connections that are still open."""
    if verb == "online":
        return said("%(real)s of %(service)s is online.", real=real, service=service)
    if verb == "halt":
        return said("%(real)s of %(service)s is halted.", real=real, service=service)
    if not left:
        return said("%(real)s of %(service)s drains.", real=real, service=service)
    return counted(
        "%(real)s of %(service)s drains; %(num)s connection is still open.",
        "%(real)s of %(service)s drains; %(num)s connections are still open.",
        left,
        real=real,
        service=service,
    )


def _end_of(spans: Spans, typed: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a drain's end; what was not typed is left out."""
    end: dict[str, Any] = {name: seconds for name in _ENDS if (seconds := spans.seconds(name)) is not None}
    if typed.get("cut"):
        end["cut"] = True
    return end


def _note(request: Request, verb: str, detail: Mapping[str, Any]) -> None:
    said = json.dumps(detail, ensure_ascii=False)
    state_of(request).audit.add(identity_of(request).by, verb, said, source_of(request))


async def foresee(state: WebState, service: str, real: str) -> DrainPlan:
    """What is known about whom a drain or halt would concern."""
    overview_ = await state.client.call("overview")
    found = next((it for it in overview_["virtual_services"] if it["label"] == service), None)
    if found is None:
        message = said("There is no virtual service %(label)s any more.", label=repr(service))
        raise ControlError("no_such_service", message)
    server = next((it for it in found["real_servers"] if it["label"] == real), None)
    if server is None:
        message = said(
            "There is no real server %(real)s in %(service)s any more.", real=repr(real), service=repr(service)
        )
        raise ControlError("no_such_real", message)
    entries: list[dict[str, Any]] = []
    if server["clients"]:
        entries = (await state.client.call("persistence_show", service=service, limit=100_000))["entries"]
    connections = (await state.client.call("connections", service=service))["connections"]
    others = [it for it in found["real_servers"] if it["label"] != real]
    return plan_drain(
        server,
        others,
        [it for it in entries if it["real"] == real],
        [it for it in connections if it["real"] == real],
    )


def _asked(values: Any) -> tuple[str, str, str]:
    verb, service, real = (str(values.get(name) or "")[:300] for name in ("do", "service", "real"))
    return verb, service, real
