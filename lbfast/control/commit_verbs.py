"""The verbs of live change: plan, commit, confirm, revert, history, diff."""

from __future__ import annotations

from typing import Any, Final

from lbfast.config.impact import CUT, DRAIN
from lbfast.control.commits import Commits, Wish
from lbfast.control.engine import Caller, Engine
from lbfast.control.protocol import ControlError

Result = dict[str, Any]

MOST_TEXT: Final = 1_000_000  # a request has at most 1 MiB
LONGEST_CONFIRM: Final = 86_400


def plan(
    engine: Engine,
    caller: Caller,
    text: str,
    file: str,
    removed: str = CUT,
    against: int | None = None,
    cut_after: int | None = None,
) -> Result:
    return _commits(engine).plan(Wish(text, file, caller.user, "", removed_policy(removed, cut_after), against))


async def commit(
    engine: Engine,
    caller: Caller,
    text: str,
    file: str,
    reason: str = "",
    removed: str = CUT,
    against: int | None = None,
    confirm: int | None = None,
    cut_after: int | None = None,
) -> Result:
    policy = removed_policy(removed, cut_after)
    wish = Wish(text, file, caller.user, reason, policy, against, _float(confirm), _float(cut_after))
    return await _commits(engine).commit(wish)


async def confirm(engine: Engine, caller: Caller) -> Result:
    result = _commits(engine).confirm(caller.user)
    if engine.pair is not None:
        await engine.pair.confirmed()
    return result


async def revert(engine: Engine, caller: Caller, version: int | None = None, reason: str = "") -> Result:
    return await _commits(engine).revert(version, caller.user, reason)


def history(engine: Engine) -> Result:
    return _commits(engine).history()


def diff(engine: Engine, before: int | None = None, after: int | None = None) -> Result:
    return _commits(engine).diff(before, after)


def _float(seconds: int | None) -> float | None:
    return None if seconds is None else float(seconds)


def removed_policy(removed: str, cut_after: int | None) -> str:
    """What becomes of the connections of removed servers; ControlError for what makes no sense."""
    if removed not in (CUT, DRAIN):
        raise ControlError("bad_argument", f"removed: expected {CUT} or {DRAIN}, found {removed[:40]!r}")
    if cut_after is not None and removed != DRAIN:
        raise ControlError("bad_argument", f"cut_after: expected removed = {DRAIN} with it, found {removed}")
    return removed


def _commits(engine: Engine) -> Commits:
    if engine.commits is None:
        raise ControlError("refused", "this control process has no supervisor: nothing can be changed")
    return engine.commits
