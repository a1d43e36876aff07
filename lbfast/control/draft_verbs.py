"""The verbs of the candidate: show, diff, plan, edit, commit, discard."""

from __future__ import annotations

from typing import Any, Final

from lbfast.config.impact import CUT
from lbfast.control.arguments import Arg, Entry
from lbfast.control.commit_verbs import removed_policy
from lbfast.control.drafts import Drafts
from lbfast.control.engine import Caller, Engine
from lbfast.control.face import face_of
from lbfast.control.marks import LONGEST_DEADLINE

Result = dict[str, Any]

LONGEST_CONFIRM: Final = 86_400


def candidate(engine: Engine) -> Result:
    edited_on = None if engine.pair is None else engine.pair.edited_on()
    return {**_drafts(engine).show(), "edited_on": edited_on}


def candidate_diff(engine: Engine) -> Result:
    return _drafts(engine).diff()


async def candidate_plan(engine: Engine, caller: Caller, removed: str = CUT, cut_after: int | None = None) -> Result:
    return await _drafts(engine).plan(caller.user, removed_policy(removed, cut_after))


async def candidate_edit(
    engine: Engine, caller: Caller, operations: list[Any], tag: str | None = None, trial: bool = False
) -> Result:
    return await _drafts(engine).edit(operations, caller.user, tag, trial)


async def candidate_commit(
    engine: Engine,
    caller: Caller,
    tag: str | None = None,
    reason: str = "",
    removed: str = CUT,
    confirm: int | None = None,
    overwrite: bool = False,
    cut_after: int | None = None,
) -> Result:
    policy = removed_policy(removed, cut_after)
    drafts = _drafts(engine)
    return await drafts.commit(caller.user, tag, reason, policy, confirm, overwrite=overwrite, cut_after=cut_after)


async def candidate_discard(engine: Engine, caller: Caller, tag: str | None = None) -> Result:
    return await _drafts(engine).discard(caller.user, tag)


def _drafts(engine: Engine) -> Drafts:
    return face_of(engine).drafts


_TAG = Arg("tag", str, required=False, most=64)
_REMOVED = Arg("removed", str, required=False)
_CUT_AFTER = Arg("cut_after", int, False, 0, LONGEST_DEADLINE)  # seconds
_REASON = Arg("reason", str, required=False, least=0, most=500)

# name, function, arguments, whether it changes something
ENTRIES: Final[tuple[Entry, ...]] = (
    ("candidate", candidate, (), False),
    ("candidate_diff", candidate_diff, (), False),
    ("candidate_plan", candidate_plan, (_REMOVED, _CUT_AFTER), True),
    ("candidate_edit", candidate_edit, (Arg("operations", list), _TAG, Arg("trial", bool, required=False)), True),
    (
        "candidate_commit",
        candidate_commit,
        (
            _TAG,
            _REASON,
            _REMOVED,
            Arg("confirm", int, False, 1, LONGEST_CONFIRM),
            Arg("overwrite", bool, False),
            _CUT_AFTER,
        ),
        True,
    ),
    ("candidate_discard", candidate_discard, (_TAG,), True),
)
