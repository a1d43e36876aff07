"""Cluster Configuration: virtual services and real servers, added, modified, cloned and deleted in the candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.candidate import Candidate, Outcome, edit, read_candidate
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.fields import changed_settings, form_of, posted_values, typed_values
from lbfast.web.render import back, page, why
from lbfast.web.said import joined, said
from lbfast.web.state import WebState
from lbfast.web.words import quoted

SERVICES: Final = "/lbadmin/cluster/services"
REALS: Final = "/lbadmin/cluster/reals"


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(SERVICES, services_page, methods=["GET"]),
        Route(SERVICES, service_action, methods=["POST"]),
        Route(SERVICES + "/new", service_form, methods=["GET"]),
        Route(SERVICES + "/new", service_save, methods=["POST"]),
        Route(SERVICES + "/edit", service_form, methods=["GET"]),
        Route(SERVICES + "/edit", service_save, methods=["POST"]),
        Route(SERVICES + "/clone", clone_form, methods=["GET"]),
        Route(SERVICES + "/clone", clone_save, methods=["POST"]),
        Route(REALS, reals_page, methods=["GET"]),
        Route(REALS, real_action, methods=["POST"]),
        Route(REALS + "/new", real_form, methods=["GET"]),
        Route(REALS + "/new", real_save, methods=["POST"]),
        Route(REALS + "/edit", real_form, methods=["GET"]),
        Route(REALS + "/edit", real_save, methods=["POST"]),
    ]


# --- virtual services -----------------------------------------------------------------------------


@require("report")
async def services_page(request: Request) -> Response:
    return await _list(request, "services.html")


async def _list(request: Request, template: str) -> Response:
    try:
        candidate = await read_candidate(state_of(request).client)
    except (ControlError, ControlUnavailable) as error:
        return await page(request, template, 503, services=[], fault=why(error))
    return await page(request, template, services=candidate.services, fault="")


@require("configure")
async def service_form(request: Request) -> Response:
    label = text_of(request.query_params, "service")
    try:
        candidate = await read_candidate(state_of(request).client)
    except (ControlError, ControlUnavailable) as error:
        return back(request, SERVICES, "bad", why(error))
    before = candidate.service(label) if not is_new(request) else {}
    if before is None:
        return back(
            request,
            SERVICES,
            "bad",
            said("There is no virtual service %(label)s in the configuration.", label=repr(label)),
        )
    return await show_service(request, label, typed_values(form_of("service"), before), candidate.tag, Outcome(True))


def is_new(request: Request) -> bool:
    """Whether the form adds something, rather than modify what there is."""
    return request.url.path.removesuffix("/test").endswith("/new")


async def show_service(
    request: Request,
    label: str,
    values: Mapping[str, str],
    tag: str,
    outcome: Outcome,
    tests: Sequence[Mapping[str, Any]] = (),
    test_address: str = "",
) -> Response:
    """The form as it was typed; ``tests`` are what *Test now* brought."""
    form = form_of("service")
    title = (
        said("Layer 7 – Add a new Virtual Service")
        if is_new(request)
        else said("Layer 7 – Modify Virtual Service – %(label)s", label=label)
    )
    return await page(
        request,
        "config_form.html",
        200 if outcome.is_accepted else 422,
        form=form,
        values=values,
        outcome=outcome,
        tag=tag,
        title=title,
        heading="Virtual Service",
        hidden={"service": label},
        cancel=SERVICES,
        action=request.url.path.removesuffix("/test"),
        tests=tests,
        test_address=test_address,
    )


@require("configure")
async def service_save(request: Request) -> Response:
    posted = await request.form()
    form, client, identity = form_of("service"), state_of(request).client, identity_of(request)
    values, label, tag = posted_values(form, posted), text_of(posted, "service"), text_of(posted, "tag", 64)
    try:
        candidate = await read_candidate(client)
        before = {} if is_new(request) else candidate.service(label)
        if before is None:
            return back(
                request, SERVICES, "bad", said("There is no virtual service %(label)s any more.", label=repr(label))
            )
        settings = changed_settings(form, values, before)
        if not settings:
            return back(request, SERVICES, "info", said("Nothing was changed."))
        operation = {"op": "add_service"} if is_new(request) else {"op": "change_service", "service": label}
        outcome = await edit(client, identity.by, [operation | {"settings": settings}], tag, values["label"])
    except (ControlError, ControlUnavailable) as error:
        outcome = Outcome(False, {}, (why(error),))
        return await show_service(request, label, values, tag, outcome)
    if not outcome.is_accepted:
        return await show_service(request, label, values, tag, outcome)
    _note(
        request,
        "add virtual service" if is_new(request) else "modify virtual service",
        label or values["label"],
        settings,
    )
    if is_new(request):
        place = f"{REALS}/new?service={quoted(values['label'])}"
        return back(
            request, place, "good", said("%(label)s is in the candidate. Now its real servers.", label=values["label"])
        )
    return back(request, SERVICES, "good", said("%(label)s is changed in the candidate.", label=values["label"]))


@require("configure")
async def service_action(request: Request) -> Response:
    posted = await request.form()
    label = text_of(posted, "service")
    return await _delete(request, SERVICES, {"op": "delete_service", "service": label}, label)


@require("configure")
async def clone_form(request: Request) -> Response:
    label = text_of(request.query_params, "service")
    values = {"label": f"{label} (copy)"[:200], "address": "", "ports": ""}
    return await _show_clone(request, label, values, Outcome(True))


async def _show_clone(request: Request, label: str, values: Mapping[str, str], outcome: Outcome) -> Response:
    fields = form_of("service").basic[:3]
    status = 200 if outcome.is_accepted else 422
    return await page(request, "clone.html", status, service=label, fields=fields, values=values, outcome=outcome)


@require("configure")
async def clone_save(request: Request) -> Response:
    posted = await request.form()
    label = text_of(posted, "service")
    values = {name: text_of(posted, name) for name in ("label", "address", "ports")}
    settings = {name: value for name, value in values.items() if value}
    operation = {"op": "clone_service", "service": label, "settings": settings}
    try:
        outcome = await edit(state_of(request).client, identity_of(request).by, [operation], None, values["label"])
    except (ControlError, ControlUnavailable) as error:
        outcome = Outcome(False, {}, (why(error),))
    if not outcome.is_accepted:
        return await _show_clone(request, label, values, outcome)
    _note(request, "clone virtual service", label, settings)
    return back(request, SERVICES, "good", said("%(label)s is in the candidate.", label=values["label"]))


# --- real servers ---------------------------------------------------------------------------------


@require("report")
async def reals_page(request: Request) -> Response:
    return await _list(request, "reals.html")


@require("configure")
async def real_form(request: Request) -> Response:
    service, real = text_of(request.query_params, "service"), text_of(request.query_params, "real")
    try:
        candidate = await read_candidate(state_of(request).client)
    except (ControlError, ControlUnavailable) as error:
        return back(request, REALS, "bad", why(error))
    found = candidate.service(service)
    before = {} if is_new(request) else candidate.real(service, real)
    if found is None or before is None:
        return back(
            request, REALS, "bad", said("There is no such virtual service or real server in the configuration.")
        )
    values = typed_values(form_of("real"), before)
    if is_new(request):
        values["label"] = next_label(candidate, service)
    return await show_real(request, service, real, values, candidate.tag, Outcome(True))


def next_label(candidate: Candidate, service: str) -> str:
    """``Symphony Server 4`` after three of them, as the guide numbers them."""
    taken = {it.get("label") for it in (candidate.service(service) or {}).get("real_server", [])}
    names = (f"{service[:180]} Server {number}" for number in range(1, 10_000))
    return next(name for name in names if name not in taken)


async def show_real(
    request: Request,
    service: str,
    real: str,
    values: Mapping[str, str],
    tag: str,
    outcome: Outcome,
    tests: Sequence[Mapping[str, Any]] = (),
) -> Response:
    """The form as it was typed; ``tests`` are what *Test now* brought."""
    title = (
        said("Layer 7 Add a new Real Server – %(service)s", service=service)
        if is_new(request)
        else said("Layer 7 Modify Real Server – %(real)s", real=real)
    )
    return await page(
        request,
        "config_form.html",
        200 if outcome.is_accepted else 422,
        form=form_of("real"),
        values=values,
        outcome=outcome,
        tag=tag,
        title=title,
        heading="Real Server",
        hidden={"service": service, "real": real},
        cancel=REALS,
        action=request.url.path.removesuffix("/test"),
        tests=tests,
        test_address="",
    )


@require("configure")
async def real_save(request: Request) -> Response:
    posted = await request.form()
    form, client, identity = form_of("real"), state_of(request).client, identity_of(request)
    values, tag = posted_values(form, posted), text_of(posted, "tag", 64)
    service, real = text_of(posted, "service"), text_of(posted, "real")
    try:
        candidate = await read_candidate(client)
        before = {} if is_new(request) else candidate.real(service, real)
        if before is None:
            return back(request, REALS, "bad", said("There is no real server %(real)s any more.", real=repr(real)))
        settings = changed_settings(form, values, before)
        if not settings:
            return back(request, REALS, "info", said("Nothing was changed."))
        operation: dict[str, Any] = {"op": "add_real" if is_new(request) else "change_real", "service": service}
        operation |= {"settings": settings} | ({} if is_new(request) else {"real": real})
        outcome = await edit(client, identity.by, [operation], tag, service, values["label"])
    except (ControlError, ControlUnavailable) as error:
        outcome = Outcome(False, {}, (why(error),))
    if not outcome.is_accepted:
        return await show_real(request, service, real, values, tag, outcome)
    _note(
        request,
        "add real server" if is_new(request) else "modify real server",
        f"{service} / {values['label']}",
        settings,
    )
    if "more" in posted:
        return back(
            request,
            f"{REALS}/new?service={quoted(service)}",
            "good",
            said("%(label)s is in the candidate.", label=values["label"]),
        )
    return back(request, REALS, "good", said("%(label)s is in the candidate.", label=values["label"]))


@require("configure")
async def real_action(request: Request) -> Response:
    posted = await request.form()
    service, real = text_of(posted, "service"), text_of(posted, "real")
    return await _delete(request, REALS, {"op": "delete_real", "service": service, "real": real}, f"{service} / {real}")


# --- both -----------------------------------------------------------------------------------------


async def _delete(request: Request, place: str, operation: Mapping[str, Any], what: str) -> Response:
    try:
        outcome = await edit(state_of(request).client, identity_of(request).by, [operation])
    except (ControlError, ControlUnavailable) as error:
        return back(request, place, "bad", why(error))
    if not outcome.is_accepted:
        return back(request, place, "bad", joined(*outcome.others, *outcome.faults.values()))
    _note(request, str(operation["op"]).replace("_", " "), what, {})
    return back(
        request, place, "good", said("%(what)s is deleted in the candidate. It runs until you commit.", what=what)
    )


def _note(request: Request, what: str, where: str, settings: Mapping[str, Any]) -> None:
    detail = json.dumps({"what": where, **({"settings": settings} if settings else {})}, ensure_ascii=False)
    state_of(request).audit.add(identity_of(request).by, what, detail, source_of(request))
