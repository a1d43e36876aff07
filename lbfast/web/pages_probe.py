"""*Test now*: one probe out of turn, of a real server as it runs, or with what stands in a form and is not saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.candidate import Outcome, outcome_of, read_candidate
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.fields import changed_settings, form_of, posted_values
from lbfast.web.pages_config import REALS, SERVICES, is_new, show_real, show_service
from lbfast.web.pages_health import HEALTH, show_health
from lbfast.web.render import back, why
from lbfast.web.said import said
from lbfast.web.state import WebState

Report = dict[str, Any]

PROBE_S: Final = 180.0  # a probe takes as long as its timeout says


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(HEALTH, test_running, methods=["POST"]),
        *(Route(f"{SERVICES}/{what}/test", test_service, methods=["POST"]) for what in ("new", "edit")),
        *(Route(f"{REALS}/{what}/test", test_real, methods=["POST"]) for what in ("new", "edit")),
    ]


@require("operate")
async def test_running(request: Request) -> Response:
    """Of the health page: the health check that runs."""
    posted = await request.form()
    service, real = text_of(posted, "service"), text_of(posted, "real")
    try:
        report = await _ask(request, service=service, real=real)
    except (ControlError, ControlUnavailable) as error:
        return back(request, HEALTH.rpartition("/")[0], "bad", why(error))
    return await show_health(request, service, real, report["tests"])


@require("configure")
async def test_service(request: Request) -> Response:
    """Of the form of a virtual service: what is typed there, on all its real servers or on the one that is named."""
    posted = await request.form()
    form = form_of("service")
    values, label, tag = posted_values(form, posted), text_of(posted, "service"), text_of(posted, "tag", 64)
    where = text_of(posted, "test-address", 100)
    candidate = await _candidate(request)
    before: Mapping[str, Any] | None = {} if is_new(request) else candidate and candidate.service(label)
    tests: Sequence[Report] = ()
    if before is None:
        outcome = Outcome(False, {}, (said("There is no virtual service %(label)s any more.", label=repr(label)),))
    else:
        operation = {"op": "add_service"} if is_new(request) else {"op": "change_service", "service": label}
        settings = changed_settings(form, values, before)
        outcome, tests = await _try(request, operation, settings, values["label"], None, where)
    return await show_service(request, label, values, tag, outcome, tests, where)


@require("configure")
async def test_real(request: Request) -> Response:
    """Of the form of a real server: the health check of its virtual service, on the server that is typed."""
    posted = await request.form()
    form = form_of("real")
    values, tag = posted_values(form, posted), text_of(posted, "tag", 64)
    service, real = text_of(posted, "service"), text_of(posted, "real")
    candidate = await _candidate(request)
    before: Mapping[str, Any] | None = {} if is_new(request) else candidate and candidate.real(service, real)
    tests: Sequence[Report] = ()
    if before is None:
        outcome = Outcome(False, {}, (said("There is no real server %(real)s any more.", real=repr(real)),))
    else:
        operation = {"op": "add_real"} if is_new(request) else {"op": "change_real", "real": real}
        settings = changed_settings(form, values, before)
        outcome, tests = await _try(request, operation | {"service": service}, settings, service, values["label"], "")
    return await show_real(request, service, real, values, tag, outcome, tests)


async def _candidate(request: Request) -> Any:
    try:
        return await read_candidate(state_of(request).client)
    except (ControlError, ControlUnavailable):
        return None  # what is asked next says why


async def _try(
    request: Request, operation: Report, settings: Report, service: str, real: str | None, where: str
) -> tuple[Outcome, Sequence[Report]]:
    """The outcome for the form's fields, and a report for each server that was probed."""
    operations = [operation | {"settings": settings}] if settings else []
    try:
        address, port = split_place(where)
        report = await _ask(request, service=service, real=real, operations=operations, address=address, port=port)
    except ValueError as error:
        return Outcome(False, {"test-address": str(error)}), ()
    except (ControlError, ControlUnavailable) as error:
        return Outcome(False, {}, (why(error),)), ()
    outcome = outcome_of(report, service, real)
    if outcome.is_accepted and not report["tests"]:
        return Outcome(False, {"test-address": "There is no real server yet: name one to ask."}), ()
    return outcome, report["tests"]


async def _ask(request: Request, **args: Any) -> Report:
    identity = identity_of(request)
    report: Report = await state_of(request).client.call("health_test", by=identity.by, timeout=PROBE_S, **args)
    detail = json.dumps({key: value for key, value in args.items() if value not in (None, [])}, ensure_ascii=False)
    state_of(request).audit.add(identity.by, "test health check", detail, source_of(request))
    return report


def split_place(text: str) -> tuple[str | None, int | None]:
    """``10.0.0.1``, ``10.0.0.1:8080``, ``[::1]:8080``, ``::1``; ValueError for a port that is none."""
    if not text:
        return None, None
    address, colon, port = text.rpartition(":")
    if not colon or (":" in address and not address.startswith("[")):
        return text.strip("[]"), None
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise ValueError(said("Found port %(port)s, expected 1 to 65535.", port=repr(port[:20])))
    return address.strip("[]"), int(port)
