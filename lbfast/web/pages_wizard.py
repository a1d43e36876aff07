"""Setup Wizard: the guide's section 9 in three steps: the virtual service, its real servers, commit."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.candidate import found_expected
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.render import back, page, why
from lbfast.web.said import said
from lbfast.web.state import WebState

PLACE: Final = "/lbadmin/cluster/wizard"
ROWS: Final = 4
CHECKS: Final = ("connect", "https", "http", "none")


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route(PLACE, wizard, methods=["GET"]), Route(PLACE, save, methods=["POST"])]


@require("configure")
async def wizard(request: Request) -> Response:
    values: dict[str, Any] = {
        "label": "",
        "address": "",
        "ports": "443",
        "check": "connect",
        "reals": [("", "")] * ROWS,
    }
    return await page(request, "wizard.html", step=1, values=values, faults={}, others=(), checks=CHECKS)


@require("configure")
async def save(request: Request) -> Response:
    """Step 1 leads to step 2 with everything that was typed; step 2 writes the candidate and leads to commit."""
    form = await request.form()
    step = text_of(form, "step", 2)
    reals = [(text_of(form, f"real-{n}-label"), text_of(form, f"real-{n}-address")) for n in range(20)]
    values: dict[str, Any] = {name: text_of(form, name) for name in ("label", "address", "ports", "check")}
    values["reals"] = [it for it in reals if any(it)] or [("", "")]
    service = {"label": values["label"], "address": values["address"], "ports": values["ports"]}
    if values["check"] in CHECKS and values["check"] != "connect":
        service["health_check"] = {"type": values["check"]}
    servers = [{"label": label, "address": address} for label, address in values["reals"] if label or address]
    is_last = step == "2"
    operation = {"op": "add_service", "settings": service, "real_servers": servers if is_last else []}
    client, identity = state_of(request).client, identity_of(request)
    try:
        outcome = await _try(client, identity.by, operation, values, is_trial=not is_last)
    except (ControlError, ControlUnavailable) as error:
        return await _show(request, 2 if is_last else 1, values, {}, (why(error),))
    faults, others = outcome
    if faults or others:
        at = 1 if any(name in faults for name in ("label", "address", "ports")) or not is_last else 2
        return await _show(request, at, values, faults, others)
    if not is_last:
        named = [(f"{values['label']} Server {number}", "") for number in range(1, ROWS)]
        values["reals"] = named if values["reals"] == [("", "")] else values["reals"]
        return await _show(request, 2, values, {}, ())
    state_of(request).audit.add(identity.by, "setup wizard", values["label"], source_of(request))
    return back(
        request,
        "/lbadmin/commit",
        "good",
        said("%(label)s is in the candidate. Commit makes it run.", label=values["label"]),
    )


async def _try(
    client: Any, by: str, operation: dict[str, Any], values: dict[str, Any], *, is_trial: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Faults by field, ``real-1-address`` for the second line of the servers; and what belongs to no field."""
    report = await client.call("candidate_edit", by=by, operations=[operation], trial=is_trial)
    lines = {label: place for place, (label, _) in enumerate(values["reals"])}
    faults: dict[str, str] = {}
    others: list[str] = []
    for it in report["problems"]:
        line = lines.get(it["real"])
        if it["service"] != values["label"] or not it["field"] or (it["real"] is not None and line is None):
            others.append(it["message"])
            continue
        faults.setdefault(it["field"] if it["real"] is None else f"real-{line}-{it['field']}", found_expected(it))
    return faults, tuple(others)


async def _show(
    request: Request, step: int, values: dict[str, Any], faults: dict[str, str], others: tuple[str, ...]
) -> Response:
    status = 422 if faults or others else 200
    return await page(
        request, "wizard.html", status, step=step, values=values, faults=faults, others=others, checks=CHECKS
    )
