"""The verbs about lbfast's own processes: restart."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.errors import OK, BadUsage

RESTART_S = 130.0


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
    out.line(f"{name}: replaced" if name not in ("control", "health") else f"{name}: is being replaced")
    return OK
