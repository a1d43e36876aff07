"""The verbs about lbfast's own processes: restart, upgrade."""

from __future__ import annotations

from typing import Any, Final

from lbfast.control.engine import Caller, Engine
from lbfast.control.line import SupervisorLine
from lbfast.control.protocol import ControlError

RESTART_S: Final = 120.0
TRIAL_S: Final = 30  # that the new program has to prove itself
UPGRADE_S: Final = 180.0  # for the rest
_SINGLE: Final = ("control", "health", "web", "workers")


async def restart(engine: Engine, caller: Caller, process: str) -> dict[str, Any]:
    """Replace a process by a new one; no connection is cut."""
    word, _, number = process.partition(" ")
    if process not in _SINGLE and not (word == "worker" and number.isdigit()):
        raise ControlError("bad_argument", f"process: expected worker N, {', '.join(_SINGLE)}, found {process[:40]!r}")
    engine.announce(f"{process} restarted by {caller.user}", "process")
    answer = await _line(engine).request({"do": "restart", "name": process}, RESTART_S)
    if answer["failure"]:
        raise ControlError("refused", f"{process} was not replaced, everything is as before: {answer['failure']}")
    return {"process": process}


async def upgrade(engine: Engine, caller: Caller, within: int = TRIAL_S) -> dict[str, Any]:
    """Run the program that is installed now, in place of the one that runs; no connection is cut."""
    engine.announce(f"upgrade asked for by {caller.user}", "process")
    answer = await _line(engine).request({"do": "upgrade", "within": within}, within + UPGRADE_S)
    if answer["failure"]:
        raise ControlError("refused", f"not upgraded: {answer['failure']}")
    return dict(answer.get("result", {}))


def _line(engine: Engine) -> SupervisorLine:
    if engine.line is None:
        raise ControlError("refused", "this control process has no supervisor: nothing can be replaced")
    return engine.line
