"""The candidate: edited by many, one change at a time, kept on disk, committed or discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lbfast.config.edit import EditError, Operation, edit
from lbfast.config.errors import ConfigError, Problem
from lbfast.config.impact import CUT
from lbfast.config.source import parse_source
from lbfast.config.store import Loaded, validate
from lbfast.control.commits import Commits, Report, Wish
from lbfast.control.difference import differing_lines
from lbfast.control.draft_file import Change, Draft, forget_draft, load_draft, put_draft_aside, save_draft
from lbfast.control.protocol import ControlError

if TYPE_CHECKING:
    from lbfast.control.engine import Engine
    from lbfast.model.appliance import Config

FILE: Final = "candidate"
MOST_TEXT: Final = 1_000_000


class Drafts:
    """The one writer of the candidate."""

    def __init__(self, engine: Engine, commits: Commits, state_dir: Path) -> None:
        self._engine = engine
        self._commits = commits
        self._state_dir = state_dir
        self._lock = asyncio.Lock()
        self._draft, trouble = load_draft(state_dir)
        if trouble:
            engine.announce(trouble)

    def current(self) -> Draft:
        """The candidate; without edits the running configuration."""
        if self._draft is not None:
            return self._draft
        version = self._commits.version
        return Draft(self._commits.store.text(version) or "", version)

    @property
    def running(self) -> Config:
        return self._commits.running.config

    async def tried(self, operations: Sequence[Operation]) -> tuple[Config | None, list[Report]]:
        """The candidate as it would be after these operations, of which none may be; or what is wrong with it."""
        text = self.current().text
        if operations:
            text, _ = await self._edited(text, operations)
        loaded, problems = await asyncio.to_thread(_validated, text)
        return (None if loaded is None else loaded.config), problems

    def show(self, *, with_text: bool = True) -> Report:
        draft = self.current()
        running = self._commits.version
        report: Report = {
            "version": running,
            "base": draft.base,
            "tag": draft.tag,
            "is_changed": self._draft is not None,
            "is_outdated": draft.base != running,
            "changes": [change.__dict__ for change in draft.changes],
            "by": sorted({change.by for change in draft.changes}),
        }
        return report | ({"text": draft.text} if with_text else {})

    def diff(self) -> Report:
        """Candidate against running."""
        version = self._commits.version
        running = self._commits.store.text(version) or ""
        lines = differing_lines(running, self.current().text, f"version {version}", "candidate")
        return {"before": version, "after": "candidate", "lines": lines}

    async def plan(self, by: str, removed: str = CUT) -> Report:
        """What a commit of the candidate would do; the text is validated off the loop first."""
        text = self.current().text
        await asyncio.to_thread(_problems, text)
        return self._commits.plan(Wish(text, FILE, by, "", removed))

    async def edit(self, operations: Sequence[Operation], by: str, tag: str | None, is_trial: bool) -> Report:
        """All operations or none; ``accepted`` is false, and nothing is changed, when the result is not valid."""
        async with self._lock:
            before = self.current()
            self._check_tag(before, tag)
            text, lines = await self._edited(before.text, operations)
            problems = await asyncio.to_thread(_problems, text)
            outcome = {"accepted": not problems, "problems": problems, "lines": lines}
            if not problems and not is_trial:
                at = self._engine.clock.now_iso()
                self._keep(before.edited(text, [Change(at, by, line) for line in lines]))
                self._engine.announce(f"candidate edited by {by}: {'; '.join(lines)[:1_000]}")
            return outcome | self.show(with_text=False)

    async def _edited(self, text: str, operations: Sequence[Operation]) -> tuple[str, list[str]]:
        try:
            text, lines = await asyncio.to_thread(edit, text, list(operations))
        except EditError as error:
            raise ControlError("bad_argument", str(error)) from None
        if len(text) > MOST_TEXT:
            raise ControlError("refused", f"the candidate would have {len(text)} characters, at most {MOST_TEXT}")
        return text, lines

    async def commit(
        self,
        by: str,
        tag: str | None = None,
        reason: str = "",
        removed: str = CUT,
        confirm: int | None = None,
        *,
        overwrite: bool = False,
        cut_after: int | None = None,
    ) -> Report:
        """Make it the running configuration.  ``overwrite``: also when another version was committed since."""
        async with self._lock:
            draft = self.current()
            self._check_tag(draft, tag)
            if self._draft is None:
                raise ControlError("nothing_pending", "there are no changes to commit")
            against = None if overwrite else draft.base
            wish = Wish(draft.text, FILE, by, reason, removed, against, _float(confirm), _float(cut_after))
            report = await self._commits.commit(wish)
            self._forget()
            return report

    async def discard(self, by: str, tag: str | None = None) -> Report:
        async with self._lock:
            draft = self.current()
            self._check_tag(draft, tag)
            if self._draft is not None:
                self._forget()
                self._engine.announce(f"{len(draft.changes)} changes of the candidate discarded by {by}")
            return self.show(with_text=False)

    async def take(self, draft: Draft | None, *, keep_own: bool) -> None:
        """The peer's candidate, or that it has none, in place of ours; ``keep_own``: beside it, nobody has seen it."""
        async with self._lock:
            if draft == self._draft:
                return
            kept = f"; that of this box is kept in {put_draft_aside(self._state_dir)}" if keep_own else ""
            if draft is None:
                self._forget()
            else:
                self._keep(draft)
            by = ", ".join(sorted({change.by for change in draft.changes})) if draft else ""
            what = f"the candidate, edited by {by}, was" if draft else "that there is no candidate was"
            self._engine.announce(f"{what} taken over from the peer{kept}")

    @property
    def kept(self) -> Draft | None:
        """What is on disk: None without edits."""
        return self._draft

    def _check_tag(self, draft: Draft, tag: str | None) -> None:
        if tag is not None and tag != draft.tag:
            last = draft.changes[-1] if draft.changes else None
            who = f"{last.by} at {last.at}: {last.text}" if last else f"version {draft.base} runs"
            raise ControlError("conflict", f"the candidate has changed since you saw it ({who}); look again")

    def _keep(self, draft: Draft) -> None:
        try:
            save_draft(self._state_dir, draft)
        except OSError as error:
            message = f"nothing was changed: {self._state_dir} cannot be written to ({error.strerror})"
            raise ControlError("internal", message) from error
        self._draft = draft

    def _forget(self) -> None:
        forget_draft(self._state_dir)
        self._draft = None


def _float(seconds: int | None) -> float | None:
    return None if seconds is None else float(seconds)


def _problems(text: str) -> list[Report]:
    """What `check` would say of a text, as plain data with the key that each concerns."""
    return _validated(text)[1]


def _validated(text: str) -> tuple[Loaded | None, list[Report]]:
    try:
        return validate(parse_source(text, FILE)), []
    except ConfigError as error:
        return None, [_problem(problem, text) for problem in error.problems]


def _problem(problem: Problem, text: str) -> Report:
    """``service`` and ``real`` are labels, ``field`` is the key inside them: ``health_check.interval``."""
    path = list(problem.path)
    service = real = None
    field = path
    if path[:1] == ["virtual_service"] and len(path) > 1:
        service, field = _label_at(text, path[:2]), path[2:]
        if field[:1] == ["real_server"] and len(field) > 1:
            real, field = _label_at(text, path[:4]), field[2:]
    return {
        "path": path,
        "service": service,
        "real": real,
        "field": ".".join(map(str, field)),
        "line": problem.line,
        "found": problem.found,
        "expected": problem.expected,
        "message": str(problem),
    }


def _label_at(text: str, path: list[Any]) -> str | None:
    try:
        found: Any = parse_source(text, FILE).data
        for step in path:
            found = found[step]
        label = found.get("label")
    except (ConfigError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return label if isinstance(label, str) else None
