"""Local Configuration: where the web interface listens, its certificate, workers and log."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from lbfast.model.addresses import is_wildcard, join_address
from lbfast.model.appliance import HTTP_PORT, HTTPS_PORT
from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.candidate import edit, read_candidate
from lbfast.web.certificate_notes import own_notes
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.pages_commit import CONFIRM_S
from lbfast.web.pages_history import COMMIT_S
from lbfast.web.render import back, page, why
from lbfast.web.said import said
from lbfast.web.state import WebState
from lbfast.web.tls import LARGEST_PEM, CertificateFault, check_pem, install, uninstall

SOCKETS: Final = "/lbadmin/local/sockets"
CERTIFICATE: Final = "/lbadmin/local/certificate"
SYSTEM: Final = "/lbadmin/local/system"
PORTS: Final = MappingProxyType({True: HTTPS_PORT, False: HTTP_PORT})
LOG_TARGETS: Final = ("stdout", "file", "syslog", "journald", "none")


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route("/lbadmin/local", _first, methods=["GET"]),
        Route(SOCKETS, sockets, methods=["GET"]),
        Route(SOCKETS, save_sockets, methods=["POST"]),
        Route(CERTIFICATE, certificate, methods=["GET"]),
        Route(CERTIFICATE, save_certificate, methods=["POST"]),
        Route(SYSTEM, system, methods=["GET"]),
        Route(SYSTEM, save_system, methods=["POST"]),
    ]


@require("configure")
async def _first(_request: Request) -> Response:
    return RedirectResponse(SOCKETS, 303)


# --- service socket addresses ---------------------------------------------------------------------


@require("configure")
async def sockets(request: Request) -> Response:
    web = state_of(request).settings
    values = {"address": web.address, "port": str(web.port_number), "tls": web.tls}
    return await page(request, "sockets.html", values=values, faults={}, others=(), confirm_s=CONFIRM_S)


@require("configure")
async def save_sockets(request: Request) -> Response:
    """Committed at once, with a timer: whoever cannot reach the new place gets the old one back."""
    form = await request.form()
    state, identity = state_of(request), identity_of(request)
    values: dict[str, Any] = {
        "address": text_of(form, "address", 64),
        "port": text_of(form, "port", 8),
        "tls": bool(form.get("tls")),
    }
    before = state.settings
    port: Any = int(values["port"]) if str(values["port"]).isdigit() else values["port"]
    if values["tls"] != before.tls and port == PORTS[before.tls]:
        port = PORTS[values["tls"]]  # left as it stood: the usual one goes with its protocol
    settings = {"web": {"address": values["address"], "port": port, "tls": values["tls"]}}
    faults: dict[str, str] = {}
    others: tuple[str, ...] = ()
    try:
        if (await read_candidate(state.client)).is_changed:
            others = (said("Other changes wait to be committed. Commit or discard them first."),)
        else:
            outcome = await edit(state.client, identity.by, [{"op": "change_global", "settings": settings}])
            faults = {name.removeprefix("web."): text for name, text in outcome.faults.items()}
            others = outcome.others
            if outcome.is_accepted:
                await _commit_or_undo(state, identity.by)
    except (ControlError, ControlUnavailable) as error:
        others = (why(error),)
    if faults or others:
        return await page(
            request, "sockets.html", 422, values=values, faults=faults, others=others, confirm_s=CONFIRM_S
        )
    state.audit.add(identity.by, "web address", str(settings["web"]), source_of(request))
    moved = await page(request, "moved.html", place=_place(request, settings["web"]), confirm_s=CONFIRM_S)
    if not values["tls"]:
        moved.headers["strict-transport-security"] = "max-age=0"  # else this browser would never ask for http://
    return moved


async def _commit_or_undo(state: WebState, by: str) -> None:
    try:
        await state.client.call(
            "candidate_commit", by=by, timeout=COMMIT_S, reason="address of the web interface", confirm=CONFIRM_S
        )
    except ControlError:
        await state.client.call("candidate_discard", by=by)
        raise


def _place(request: Request, web: dict[str, Any]) -> str:
    host = request.url.hostname or web["address"]
    host = host if is_wildcard(web["address"]) else web["address"]
    return f"{'https' if web['tls'] else 'http'}://{join_address(host, web['port'])}/lbadmin/"


# --- certificate ----------------------------------------------------------------------------------


@require("configure")
async def certificate(request: Request) -> Response:
    return await _show_certificate(request, "", 200)


async def _show_certificate(request: Request, fault: str, status: int) -> Response:
    state = state_of(request)
    found = state.certificate
    ends = own_notes(found, state.clock()) if found else []
    is_configured = state.settings.certificate is not None
    return await page(
        request, "certificate.html", status, found=found, ends=ends, fault=fault, is_configured=is_configured
    )


@require("configure")
async def save_certificate(request: Request) -> Response:
    form = await request.form(max_files=2, max_fields=10)
    state, identity = state_of(request), identity_of(request)
    if state.reload_certificate is None or state.settings.certificate is not None:
        return back(
            request, CERTIFICATE, "bad", said("The certificate is named in the configuration: change it there.")
        )
    if text_of(form, "do", 20) == "remove":
        uninstall(state.folder)
        state.reload_certificate()
        state.audit.add(identity.by, "certificate removed", source=source_of(request))
        return back(request, CERTIFICATE, "good", said("The certificate before is in use again."))
    try:
        pem = check_pem(await _read(form.get("certificate")), await _read(form.get("key")), state.clock())
        install(state.folder, pem)
        try:
            state.reload_certificate()
        except (OSError, ValueError) as error:
            uninstall(state.folder)
            state.reload_certificate()
            raise CertificateFault(said("The TLS library does not take it: %(error)s", error=error)) from None
    except CertificateFault as fault:
        return await _show_certificate(request, str(fault), 422)
    assert state.certificate is not None
    state.audit.add(identity.by, "certificate", state.certificate.fingerprint, source_of(request))
    return back(request, CERTIFICATE, "good", said("The new certificate is in use for every new connection."))


async def _read(file: Any) -> bytes:
    if not isinstance(file, UploadFile):
        return b""
    return await file.read(LARGEST_PEM + 1)


# --- workers and log ------------------------------------------------------------------------------


@require("configure")
async def system(request: Request) -> Response:
    return await _show_system(request, {}, (), 200)


async def _show_system(
    request: Request, faults: dict[str, str], others: tuple[str, ...], status: int, typed: dict[str, str] | None = None
) -> Response:
    data: dict[str, Any] = {}
    try:
        data = (await read_candidate(state_of(request).client)).data
    except (ControlError, ControlUnavailable) as error:
        others = (*others, why(error))
    log = data.get("log", {})
    values = typed or {
        "workers": str(data.get("workers", "")),
        "target": str(log.get("target", "stdout")),
        "file": str(log.get("file", "")),
        "rate_limit": str(log.get("rate_limit", "")),
    }
    return await page(request, "system.html", status, values=values, faults=faults, others=others, targets=LOG_TARGETS)


@require("configure")
async def save_system(request: Request) -> Response:
    form = await request.form()
    typed = {name: text_of(form, name, 4_000) for name in ("workers", "target", "file", "rate_limit")}
    settings = {
        "workers": _number(typed["workers"]),
        "log": {"target": typed["target"], "file": typed["file"] or None, "rate_limit": _number(typed["rate_limit"])},
    }
    state, identity = state_of(request), identity_of(request)
    try:
        operations = [{"op": "change_global", "settings": settings}]
        outcome = await edit(state.client, identity.by, operations)
    except (ControlError, ControlUnavailable) as error:
        return await _show_system(request, {}, (why(error),), 422, typed)
    if not outcome.is_accepted:
        return await _show_system(request, outcome.faults, outcome.others, 422, typed)
    state.audit.add(identity.by, "modify system", str(settings), source_of(request))
    return back(request, SYSTEM, "good", said("Changed in the candidate: commit to make it run."))


def _number(text: str) -> Any:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text or None
