"""View Configuration: what runs, what waits, the schema, what the kernel says; and Restart Services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.model.appliance import Config
from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.pages_history import COMMIT_S
from lbfast.web.render import back, page, why
from lbfast.web.said import said
from lbfast.web.state import WebState

RESTART: Final = "/lbadmin/maintenance/restart"
UPGRADE: Final = "/lbadmin/maintenance/upgrade"
VIEWS: Final = (
    ("candidate", "Configuration"),
    ("diff", "Waiting changes"),
    ("schema", "JSON schema"),
    ("kernel", "Kernel"),
)
PROCESSES: Final = ("control", "health", "web", "workers")
_KERNEL: Final = (
    *("net/core/somaxconn", "net/ipv4/ip_local_port_range", "net/ipv4/tcp_congestion_control"),
    *("net/ipv4/tcp_max_syn_backlog", "net/ipv4/tcp_syncookies", "net/ipv4/ip_nonlocal_bind"),
    *("fs/file-max", "fs/file-nr", "fs/nr_open", "fs/pipe-max-size", "fs/pipe-user-pages-soft"),
    *("kernel/osrelease", "kernel/hostname"),
)


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/view", view, methods=["GET"]),
        Route(RESTART, restart_page, methods=["GET"]),
        Route(RESTART, restart, methods=["POST"]),
        Route(UPGRADE, upgrade, methods=["POST"]),
    ]


@require("report")
async def view(request: Request) -> Response:
    name = text_of(request.query_params, "show", 20)
    name = name if name in dict(VIEWS) else "candidate"
    text, fault, facts = "", "", []
    try:
        if name == "schema":
            text = json.dumps(Config.model_json_schema(), indent=2)
        elif name == "kernel":
            facts = await _kernel(request)
        elif name == "diff":
            text = "\n".join((await state_of(request).client.call("candidate_diff"))["lines"])
        else:
            text = (await state_of(request).client.call("candidate"))["text"]
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    return await page(request, "view.html", views=VIEWS, name=name, text=text, fault=fault, facts=facts)


async def _kernel(request: Request) -> list[tuple[str, str]]:
    """Limits and settings that matter here, and the workers' own counts."""
    facts = [(path.replace("/", "."), _read(Path("/proc/sys") / path)) for path in _KERNEL]
    counted = await state_of(request).client.call("statistics")
    keys = ("connections", "pipes", "accept_errors", "no_descriptors", "no_memory", "no_ports", "no_pipes")
    facts += [
        (f"worker {worker['index']} {key.replace('_', ' ')}", str(worker.get(key, "")))
        for worker in counted["workers"]
        for key in keys
    ]
    return facts


def _read(path: Path) -> str:
    try:
        return " ".join(path.read_text().split())
    except OSError:
        return said("not readable here")


@require("configure")
async def restart_page(request: Request) -> Response:
    about: dict[str, Any] = {}
    fault, open_now = "", 0
    state = state_of(request)
    try:
        about = await state.client.call("version")
        open_now = sum(it["connections"] for it in (await state.client.call("statistics"))["workers"])
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    return await page(
        request,
        "restart.html",
        about=about,
        fault=fault,
        processes=PROCESSES,
        open_now=open_now,
        last=state.upgrades.read(about),
        is_upgrading=state.upgrades.is_running,
    )


@require("configure")
async def upgrade(request: Request) -> Response:
    """Begins; the page tells how it goes on, also when it is another process that serves it by then."""
    state, identity = state_of(request), identity_of(request)
    if text_of(await request.form(), "sure", 5) != "yes":
        return back(request, RESTART, "bad", said("Nothing was done: tick the box to say that you mean it."))
    if state.upgrades.is_running:
        return back(request, RESTART, "bad", said("An upgrade is under way already."))
    try:
        about = await state.client.call("version")
        state.upgrades.start(state.client, identity.by, state.clock().isoformat(timespec="seconds"), about)
    except (ControlError, ControlUnavailable, OSError) as error:
        return back(request, RESTART, "bad", why(error))
    state.audit.add(identity.by, "upgrade", f"from {about['version']}", source_of(request))
    return back(request, RESTART)


@require("configure")
async def restart(request: Request) -> Response:
    name = text_of(await request.form(), "process", 20)
    state, identity = state_of(request), identity_of(request)
    if name not in PROCESSES:
        return back(request, RESTART, "bad", said("There is no process of that name."))
    state.audit.add(identity.by, "restart", name, source_of(request))
    try:
        await state.client.call("restart", by=identity.by, timeout=COMMIT_S, process=name)
    except (ControlError, ControlUnavailable) as error:
        return back(request, RESTART, "bad", why(error))
    text = said("The workers are replaced; no connection was cut.")
    if name != "workers":
        text = said("%(name)s is replaced; no connection was cut.", name=name)
    return back(request, RESTART, "good", text)
