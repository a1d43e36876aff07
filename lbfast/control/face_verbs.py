"""The verbs around backups, graphs, logs, support archives and alerts."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from lbfast.config.schema import json_schema
from lbfast.control.arguments import Arg, Entry
from lbfast.control.engine import Caller, Engine
from lbfast.control.face import face_of
from lbfast.control.kept_log import KINDS, make_filter
from lbfast.control.protocol import ControlError
from lbfast.control.shelf import FOLDERS, PIECE, SUPPORT
from lbfast.model.upkeep import MOST_REACH_S

Result = dict[str, Any]

MOST_RECORDS: Final = 5_000
HOUR: Final = 3_600


def schema(_engine: Engine) -> Result:
    return json_schema()


def backups(engine: Engine) -> Result:
    return face_of(engine).backups.all()


async def backup(engine: Engine, caller: Caller, passphrase: str = "", reason: str = "") -> Result:
    report = await face_of(engine).backups.create(caller.user, passphrase, reason)
    engine.announce(f"backup {report['name']} made by {caller.user}" + (f": {reason}" if reason else ""))
    return report


async def restore(
    engine: Engine,
    caller: Caller,
    name: str,
    passphrase: str = "",
    trial: bool = False,
    confirm: int | None = None,
) -> Result:
    made = face_of(engine).backups
    return await made.restore(name, caller.user, passphrase, is_trial=trial, confirm=confirm)


async def file_get(engine: Engine, caller: Caller, kind: str, name: str, offset: int = 0) -> Result:
    if offset == 0:
        engine.announce(f"{kind} file {name} fetched by {caller.user}")
    return await asyncio.to_thread(face_of(engine).shelf.read_piece, kind, name, offset)


async def file_put(
    engine: Engine, caller: Caller, kind: str, name: str, offset: int, data: str, last: bool = False
) -> Result:
    if kind == SUPPORT:
        raise ControlError("refused", "support archives are made here, not uploaded")
    shelf = face_of(engine).shelf
    result = await asyncio.to_thread(lambda: shelf.put_piece(kind, name, offset, data, is_last=last))
    if last:
        engine.announce(f"{kind} file {name} uploaded by {caller.user}")
    return result


def file_delete(engine: Engine, caller: Caller, kind: str, name: str) -> Result:
    face_of(engine).shelf.remove(kind, name)
    engine.announce(f"{kind} file {name} deleted by {caller.user}")
    return {"deleted": name}


async def series(
    engine: Engine, service: str | None = None, real: str | None = None, range: int = HOUR, end: int | None = None
) -> Result:
    return await face_of(engine).sampler.series(service, real, range, end)


async def availability(engine: Engine, range: int = 30 * 24 * HOUR) -> Result:
    return await face_of(engine).sampler.availability(range)


async def logs(engine: Engine, limit: int = 200, **wanted: Any) -> Result:
    return await asyncio.to_thread(face_of(engine).kept_log.find, make_filter(wanted), limit)


async def support(engine: Engine, caller: Caller, masked: bool = False) -> Result:
    report = await face_of(engine).support.create(caller.user, is_masked=masked)
    engine.announce(f"support archive {report['name']} made by {caller.user}")
    return report


def supports(engine: Engine) -> Result:
    return {"archives": face_of(engine).shelf.listed(SUPPORT)}


def alerts(engine: Engine) -> Result:
    return face_of(engine).alerting.state()


async def alerts_test(engine: Engine, caller: Caller) -> Result:
    report = await face_of(engine).alerting.test()
    engine.announce(f"a test alert was sent by {caller.user}")
    return report


_KIND = Arg("kind", str, most=max(map(len, FOLDERS)))
_NAME = Arg("name", str, most=100)
_PASSPHRASE = Arg("passphrase", str, required=False, least=0, most=1_000)
_OFFSET = Arg("offset", int, required=False)
_RANGE = Arg("range", int, required=False, least=60, most=MOST_REACH_S)
_SERVICE = Arg("service", str, required=False)
_REAL = Arg("real", str, required=False)
_CONFIRM = Arg("confirm", int, False, 1, 86_400)

# name, function, arguments, whether it changes something or shows what not everybody may see
ENTRIES: Final[tuple[Entry, ...]] = (
    ("schema", schema, (), False),
    ("backups", backups, (), False),
    ("backup", backup, (_PASSPHRASE, Arg("reason", str, False, 0, 500)), True),
    ("restore", restore, (_NAME, _PASSPHRASE, Arg("trial", bool, required=False), _CONFIRM), True),
    ("file_get", file_get, (_KIND, _NAME, _OFFSET), True),
    (
        "file_put",
        file_put,
        (_KIND, _NAME, Arg("offset", int), Arg("data", str, True, 0, PIECE * 2), Arg("last", bool, required=False)),
        True,
    ),
    ("file_delete", file_delete, (_KIND, _NAME), True),
    ("series", series, (_SERVICE, _REAL, _RANGE, Arg("end", int, required=False)), False),
    ("availability", availability, (_RANGE,), False),
    (
        "logs",
        logs,
        (
            Arg("limit", int, False, 1, MOST_RECORDS),
            Arg("kind", str, required=False, most=max(map(len, KINDS))),
            Arg("since", str, required=False, most=40),
            Arg("until", str, required=False, most=40),
            Arg("client", str, required=False, most=64),
            _SERVICE,
            _REAL,
            Arg("reason", str, required=False, most=40),
            Arg("text", str, required=False, most=200),
        ),
        False,
    ),
    ("support", support, (Arg("masked", bool, required=False),), True),
    ("supports", supports, (), False),
    ("alerts", alerts, (), False),
    ("alerts_test", alerts_test, (), True),
)
