"""The verbs that only the pair's ha process uses: what the peer has committed or kept, taken over here."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import UUID

from lbfast.config.commit import ids_of
from lbfast.control.commits import Commits, Wish
from lbfast.control.engine import Caller, Engine
from lbfast.control.marks import marks_from_json, marks_to_json
from lbfast.control.protocol import ControlError

Result = dict[str, Any]
MOST_DOCUMENT = 1_000_000


def read(engine: Engine, caller: Caller) -> Result:
    """The running configuration as the peer needs it: text, identities, and who committed it why."""
    commits = _allowed(engine, caller)
    text = commits.text_of(commits.version)
    version = next((it for it in commits.store.all() if it.number == commits.version), None)
    ids = [[*key, str(identity)] for key, identity in ids_of(commits.running.config).ids.items()]
    return {
        "text": text,
        "ids": ids,
        "file": "" if version is None else version.file,
        "by": "" if version is None else version.by,
        "reason": "" if version is None else version.reason,
    }


async def commit(
    engine: Engine,
    caller: Caller,
    text: str,
    ids: str,
    file: str = "",
    by: str = "",
    reason: str = "",
    removed: str = "cut",
) -> Result:
    """Commit what the peer commits, under its identities; what is local to a box stays as it is here."""
    commits = _allowed(engine, caller)
    known = {(str(service), str(real)): UUID(identity) for service, real, identity in json.loads(ids)}
    wish = Wish(text, file or "the peer", by or "the peer", reason, removed, replica_ids=known)
    return await commits.commit(wish)


def marks_read(engine: Engine, caller: Caller) -> Result:
    """Drains, halts, weights and pins."""
    _allowed(engine, caller)
    return {"marks": marks_to_json(engine.book.marks)}


def marks_write(engine: Engine, caller: Caller, marks: str) -> Result:
    """The peer's drains, halts, weights and pins replace ours."""
    _allowed(engine, caller)
    try:
        engine.book.file.replace(marks_from_json(json.loads(marks)))
    except ValueError as error:
        raise ControlError("bad_argument", f"the peer's marks: {error}") from None
    engine.book.restore(engine.catalog)
    engine.announce("drains, halts, weights and pins were taken over from the peer")
    return {}


def _allowed(engine: Engine, caller: Caller) -> Commits:
    """These verbs go round the rules of the pair: they are the ha process's, which runs as we do."""
    if caller.uid not in (0, os.geteuid()) or engine.commits is None:
        raise ControlError("refused", "this verb is the ha process's")
    return engine.commits
