"""The verbs that only the pair's ha process uses: what the peer has committed or kept, taken over here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Final
from uuid import UUID

from lbfast.config.commit import ids_of
from lbfast.config.unconfirmed import Unconfirmed, hear_unconfirmed
from lbfast.config.versions import Version, decode_version
from lbfast.control.arguments import Arg, Entry
from lbfast.control.commit_verbs import MOST_TEXT
from lbfast.control.commits import Commits, Wish
from lbfast.control.draft_file import decode_draft
from lbfast.control.engine import Caller, Engine
from lbfast.control.face import face_of
from lbfast.control.marks import marks_from_json, marks_to_json
from lbfast.control.protocol import ControlError

Result = dict[str, Any]
MOST_DOCUMENT = 1_000_000


def read(engine: Engine, caller: Caller) -> Result:
    """The running configuration as the peer needs it: text, identities, and who committed it why."""
    commits = _allowed(engine, caller)
    text = commits.text_of(commits.version)
    version, waits = commits.store.get(commits.version), commits.unconfirmed
    ids = [[*key, str(identity)] for key, identity in ids_of(commits.running.config).ids.items()]
    return {
        "text": text,
        "ids": ids,
        "file": "" if version is None else version.file,
        "by": "" if version is None else version.by,
        "reason": "" if version is None else version.reason,
        "version": None if version is None else asdict(version),
        **({} if waits is None else {"waits": json.dumps(waits.as_told(engine.clock.wall()))}),
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
    version: str = "",
    waits: str = "",
) -> Result:
    """Commit what the peer commits, under its identities; what is local to a box stays as it is here.

    ``version``: as the peer keeps it, so that both have one history; a peer of an earlier release does not say.
    ``waits``: until when it waits there to be confirmed.
    """
    commits = _allowed(engine, caller)
    kept = _version_of(version) if version else None
    known = {(str(service), str(real)): UUID(identity) for service, real, identity in json.loads(ids)}
    wish = Wish(text, file or "the peer", by or "the peer", reason, removed, replica_ids=known, kept=kept)
    if waits and kept is not None:
        wish = replace(wish, waits=_heard(engine, waits))
    return await commits.commit(wish)


def version_write(engine: Engine, caller: Caller, version: str, text: str) -> Result:
    """A version of the pair's history that has never run here."""
    commits = _allowed(engine, caller)
    kept = _version_of(version)
    if kept.number >= commits.version:
        raise ControlError("refused", f"version {commits.version} runs here, version {kept.number} is no earlier one")
    with _writing(commits):
        if commits.store.text(kept.number) not in (None, text):
            commits.put_aside([kept.number])
        commits.store.add(kept, text)
    return {}


def versions_keep(engine: Engine, caller: Caller, numbers: list[Any]) -> Result:
    """The pair's history is these versions; what else was kept here gives way to it."""
    commits = _allowed(engine, caller)
    with _writing(commits):
        commits.put_aside([it for it in commits.store.numbers() if it < commits.version and it not in numbers])
    return {}


def candidate_read(engine: Engine, caller: Caller) -> Result:
    """The candidate as it is kept; null when there is none."""
    _allowed(engine, caller)
    draft = face_of(engine).drafts.kept
    return {"candidate": None if draft is None else asdict(draft)}


async def candidate_write(engine: Engine, caller: Caller, candidate: str, keep_own: bool = False) -> Result:
    """The peer's candidate replaces ours."""
    _allowed(engine, caller)
    try:
        document = json.loads(candidate)
        draft = None if document is None else decode_draft(document)
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError("bad_argument", f"the peer's candidate: {type(error).__name__} {error}") from None
    try:
        await face_of(engine).drafts.take(draft, keep_own=keep_own)
    except OSError as error:
        raise ControlError("internal", f"the candidate cannot be kept: {error.strerror}") from error
    return {}


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


def confirm(engine: Engine, caller: Caller, version: int, by: str = "") -> Result:
    """What waits here was confirmed on the peer."""
    commits = _allowed(engine, caller)
    if commits.unconfirmed is None or commits.unconfirmed.version != version:
        return {}
    return commits.confirm(f"{by or 'somebody'} on the peer")


def _heard(engine: Engine, text: str) -> Unconfirmed:
    try:
        return hear_unconfirmed(json.loads(text), engine.clock.wall())
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ControlError("bad_argument", f"what waits on the peer: {type(error).__name__} {error}") from None


def _version_of(text: str) -> Version:
    """A version as the peer keeps it."""
    try:
        document = json.loads(text)
        return decode_version(int(document["number"]), document)
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError("bad_argument", f"the peer's version: {type(error).__name__} {error}") from None


@contextmanager
def _writing(commits: Commits) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{commits.store.directory} cannot be written to ({error.strerror})"
        raise ControlError("internal", message) from error


def _allowed(engine: Engine, caller: Caller) -> Commits:
    """These verbs go round the rules of the pair: they are the ha process's, which runs as we do."""
    if caller.uid not in (0, os.geteuid()) or engine.commits is None:
        raise ControlError("refused", "this verb is the ha process's")
    return engine.commits


_TEXT = Arg("text", str, least=0, most=MOST_TEXT)
_VERSION = Arg("version", str, most=MOST_DOCUMENT)

# name, function, arguments, whether it changes something
ENTRIES: Final[tuple[Entry, ...]] = (
    ("replica_read", read, (), True),
    (
        "replica_commit",
        commit,
        (
            _TEXT,
            Arg("ids", str, least=0, most=MOST_DOCUMENT),
            *(Arg(name, str, required=False, least=0) for name in ("file", "by", "reason", "removed")),
            Arg("waits", str, required=False, least=0, most=MOST_DOCUMENT),
            _VERSION.optional(),
        ),
        True,
    ),
    ("replica_version_write", version_write, (_VERSION, _TEXT), True),
    ("replica_versions_keep", versions_keep, (Arg("numbers", list),), True),
    ("replica_candidate_read", candidate_read, (), True),
    (
        "replica_candidate_write",
        candidate_write,
        (Arg("candidate", str, most=MOST_DOCUMENT), Arg("keep_own", bool, False)),
        True,
    ),
    ("replica_confirm", confirm, (Arg("version", int, least=1), Arg("by", str, required=False, least=0)), True),
    ("replica_marks_read", marks_read, (), True),
    ("replica_marks_write", marks_write, (Arg("marks", str, most=MOST_DOCUMENT),), True),
)
