"""Maintenance > Backup & Restore, and Support: files made, fetched, uploaded and put back."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.model.visible import size
from lbfast.web.ask import text_of
from lbfast.web.auth import identity_of, require, source_of, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.files import fetch, put
from lbfast.web.pages_history import COMMIT_S
from lbfast.web.render import back, page, why
from lbfast.web.said import said
from lbfast.web.state import WebState
from lbfast.web.tables import CHANGED, TableForm, read_table, save_table

BACKUP: Final = "/lbadmin/maintenance/backup"
SUPPORT: Final = "/lbadmin/support"
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


def routes(_state: WebState) -> list[BaseRoute]:
    return [
        Route(BACKUP, backups, methods=["GET"]),
        Route(BACKUP, act, methods=["POST"]),
        Route(BACKUP + "/file", backup_file, methods=["GET"]),
        Route(SUPPORT, support, methods=["GET"]),
        Route(SUPPORT, make_archive, methods=["POST"]),
        Route(SUPPORT + "/file", support_file, methods=["GET"]),
    ]


@require("configure")
async def backups(request: Request) -> Response:
    return await _show(request, None, "")


async def _show(
    request: Request, trial: dict[str, Any] | None, name: str, fault: str = "", table: TableForm | None = None
) -> Response:
    found: dict[str, Any] = {"backups": [], "schedule": None}
    try:
        found = await state_of(request).client.call("backups")
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    table = table or await read_table(request, "backup")
    status = 422 if fault or not table.outcome.is_accepted else 200
    return await page(
        request,
        "backup.html",
        status,
        rows=found["backups"],
        schedule=found["schedule"],
        table=table,
        trial=trial,
        name=name,
        fault=fault,
    )


@require("configure")
async def act(request: Request) -> Response:
    """Make one, upload one, see what a restore would change, restore, delete."""
    form = await request.form(max_files=1, max_fields=30)
    what, name, passphrase = (
        text_of(form, "do", 20),
        text_of(form, "name", 100),
        str(form.get("passphrase") or "")[:1000],
    )
    state, identity = state_of(request), identity_of(request)
    call = state.client.call
    if what == "schedule":
        return await _save_schedule(request, form)
    try:
        if what == "make":
            report = await call("backup", by=identity.by, timeout=COMMIT_S, passphrase=passphrase)
            text = said("%(name)s is made, %(size)s.", name=report["name"], size=size(report["size"]))
        elif what == "upload":
            name = await _upload(request, form.get("file"))
            text = said("%(name)s is here. See what it would change before you restore it.", name=name)
        elif what == "look":
            trial = await call("restore", by=identity.by, name=name, passphrase=passphrase, trial=True)
            return await _show(request, trial, name)
        elif what == "restore":
            await call("restore", by=identity.by, timeout=COMMIT_S, name=name, passphrase=passphrase, confirm=300)
            text = said("%(name)s is restored. It goes back by itself in 5 minutes unless you keep it.", name=name)
        elif what == "delete":
            await call("file_delete", by=identity.by, kind="backup", name=name)
            text = said("%(name)s is deleted.", name=name)
        else:
            return back(request, BACKUP, "bad", said("There is nothing to be done of that name."))
    except (ControlError, ControlUnavailable, ValueError) as error:
        return await _show(request, None, name, why(error))
    state.audit.add(identity.by, f"backup {what}", name, source_of(request))
    return back(request, BACKUP, "good", text)


async def _save_schedule(request: Request, form: FormData) -> Response:
    table = await save_table(request, "backup", form)
    if not table.outcome.is_accepted:
        return await _show(request, None, "", table=table)
    return back(request, BACKUP, "good", CHANGED)


async def _upload(request: Request, file: Any) -> str:
    if not isinstance(file, UploadFile) or not file.filename:
        raise ValueError(said("Choose a backup file first."))
    name = _NAME.sub("-", file.filename.rpartition("/")[2].rpartition("\\")[2])[-90:].lstrip(".-_") or "backup"
    await put(state_of(request).client, identity_of(request).by, "backup", name, await file.read())
    return name


@require("configure")
async def backup_file(request: Request) -> Response:
    return await _download(request, "backup", BACKUP)


@require("operate")
async def support(request: Request) -> Response:
    rows: list[dict[str, Any]] = []
    fault, version = "", {}
    try:
        rows = (await state_of(request).client.call("supports"))["archives"]
        version = await state_of(request).client.call("version")
    except (ControlError, ControlUnavailable) as error:
        fault = why(error)
    return await page(request, "support.html", rows=rows, fault=fault, about=version)


@require("operate")
async def make_archive(request: Request) -> Response:
    form = await request.form()
    state, identity = state_of(request), identity_of(request)
    is_masked = bool(form.get("masked"))
    try:
        report = await state.client.call("support", by=identity.by, timeout=COMMIT_S, masked=is_masked)
    except (ControlError, ControlUnavailable) as error:
        return back(request, SUPPORT, "bad", why(error))
    state.audit.add(identity.by, "support archive", report["name"], source_of(request))
    return back(request, SUPPORT, "good", said("%(name)s is ready to be downloaded.", name=report["name"]))


@require("operate")
async def support_file(request: Request) -> Response:
    return await _download(request, "support", SUPPORT)


async def _download(request: Request, kind: str, place: str) -> Response:
    name = text_of(request.query_params, "name", 100)
    try:
        return await fetch(state_of(request).client, identity_of(request).by, kind, name)
    except (ControlError, ControlUnavailable) as error:
        return back(request, place, "bad", why(error))
