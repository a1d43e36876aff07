"""The verbs about lbfast's own processes: restart, upgrade."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural
from lbfast.cli.errors import OK, BadUsage, Unavailable
from lbfast.cli.options import Json
from lbfast.model.durations import parse_duration

RESTART_S = 130.0
UPGRADE_S = 200.0
COME_BACK_S = 30.0
LOOK_S = 0.2


def restart(
    process: Annotated[Literal["worker", "workers", "control", "health"], Parameter(name="PROCESS", help="Which one.")],
    number: Annotated[int | None, Parameter(name="N", help="Of a worker, as in `lbfast statistics`.")] = None,
    /,
) -> int:
    """Replace a process by a new one.  A worker passes its connections on; nothing is cut or refused."""
    if (process == "worker") != (number is not None):
        raise BadUsage("restart takes `worker N`, `workers` (all of them), `control` or `health`")
    name = process if number is None else f"{process} {number}"
    talk.ask("restart", RESTART_S, process=name)
    out.line(f"{name}: replaced")
    return OK


def upgrade(
    *,
    within: Annotated[
        str, Parameter(name="--within", help="The new program must prove itself in this time, e.g. 30s.")
    ] = "30s",
    json: Json = False,
) -> int:
    """Run the newly installed program in place of the one that runs; if it does not work, the old one goes on."""
    seconds = _seconds(within)
    result = _upgrade(seconds)
    if json:
        out.print_json(result)
        return OK
    workers = plural(int(result["workers"]), "worker")
    out.line(f"lbfast {clean(result['version'])} runs (before: {clean(result['before'])}), {workers} replaced")
    return OK


def _upgrade(seconds: int) -> dict[str, Any]:
    """The answer; where the memory's layout changes, control cannot give it: then what its successor says."""
    before = talk.ask("version")
    try:
        return dict(talk.ask("upgrade", seconds + UPGRADE_S, within=seconds))
    except Unavailable:
        deadline = time.monotonic() + COME_BACK_S
    while True:
        try:
            after = talk.ask("version")
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S)
        else:
            return {"before": before["version"], "version": after["version"], "workers": after["workers"]}


def _seconds(text: str) -> int:
    try:
        seconds = parse_duration(text) // 1_000
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 600:
        raise BadUsage(f"--within takes a time from 1s to 10m, such as 30s, got {clean(text)}")
    return seconds
