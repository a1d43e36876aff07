"""Keeps what control keeps beside the configuration the same on both boxes: admin state and candidate.

Where it was changed on one box while the other was away, that one wins; else the
primary's.  A box says what it has and what of the peer's it has taken over, so that
two releases that write the same thing differently do not take it over for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbfast.config.files import write_atomically
from lbfast.control.protocol import ControlError

AGREED_NAME: Final = "pair_agreed.json"
_NOTHING: Final = "none"
Document = dict[str, Any]
Question = Callable[[str, Document], Awaitable[Document | None]]


@dataclass(frozen=True)
class Part:
    """A file that control keeps; ``key`` is its name in messages, in verbs and in control's answer."""

    key: str
    file: str
    words: str
    yields: bool = False  # what gives way although it was changed here is put aside


PARTS: Final = (
    Part("marks", "state.json", "admin state"),
    Part("candidate", "candidate.json", "candidate", yields=True),
)


class KeptSync:
    """One per process.  ``ask``: this box's control."""

    def __init__(
        self,
        state_dir: Path,
        ask: Callable[..., Awaitable[Document]],
        is_primary: Callable[[], bool],
        tell: Callable[[str], None],
        parts: Sequence[Part] = PARTS,
    ) -> None:
        self._state_dir = state_dir
        self._ask = ask
        self._is_primary = is_primary
        self._tell = tell
        self.parts = parts
        self._agreed: dict[str, str] = _load_agreed(state_dir)  # what we had when the peer was last in step
        self._taken: dict[str, tuple[str, str]] = {}  # the peer's that was taken over, and what it is here
        self._told = ""

    def facts(self) -> Document:
        """What this box has of each part, whether that was changed alone, and of what of the peer's it is a copy."""
        found: Document = {}
        for part in self.parts:
            ours = self._digest(part)
            theirs, copy = self._taken.get(part.key, ("", _NOTHING))
            found[part.key] = ours
            found[f"{part.key}_alone"] = self._is_alone(part, ours)
            found[f"{part.key}_took"] = theirs or _NOTHING if copy == ours else ""
        return found

    async def on_part(self, part: Part) -> Document:
        """The peer asks for it."""
        try:
            return {"ok": True, **await self._ask(f"replica_{part.key}_read")}
        except ControlError as error:
            return {"ok": False, "message": error.message}

    async def compare(self, question: Question, facts: Mapping[str, Any]) -> None:
        """The peer has described itself: take over what it has and we have not."""
        for part in self.parts:
            if part.key in facts:  # an earlier release does not have every part
                await self._compare(part, question, facts)

    def _digest(self, part: Part) -> str:
        """Of the file as it is; "" when there is none."""
        try:
            return hashlib.sha256((self._state_dir / part.file).read_bytes()).hexdigest()
        except OSError:
            return ""

    def _is_alone(self, part: Part, ours: str) -> bool:
        agreed = self._agreed.get(part.key, "")
        return bool(agreed) and agreed != (ours or _NOTHING)

    async def _compare(self, part: Part, question: Question, facts: Mapping[str, Any]) -> None:
        ours, theirs = self._digest(part), str(facts[part.key])
        is_copied = self._taken.get(part.key) == (theirs, ours) or facts.get(f"{part.key}_took") == (ours or _NOTHING)
        if ours == theirs or is_copied:
            self._agree(part, ours)
            return
        alone, they_alone = self._is_alone(part, ours), bool(facts.get(f"{part.key}_alone"))
        if (alone and not they_alone) or (alone == they_alone and self._is_primary()):
            return  # the peer takes ours over
        answer = await question(part.key, {})
        if answer is None or answer.get("ok") is not True:
            return
        more = {"keep_own": True} if part.yields and alone else {}
        try:
            await self._ask(f"replica_{part.key}_write", **{part.key: json.dumps(answer[part.key])}, **more)
        except ControlError as error:
            if error.message != self._told:
                self._told = error.message
                self._tell(f"the peer's {part.words} cannot be taken over: {error.message}")
            return
        self._taken[part.key] = theirs, self._digest(part)
        self._agree(part, self._digest(part))

    def _agree(self, part: Part, ours: str) -> None:
        if self._agreed.get(part.key) == (ours or _NOTHING):
            return
        self._agreed[part.key] = ours or _NOTHING
        with suppress(OSError):  # after a restart, then, the primary's wins
            document = json.dumps(self._agreed).encode()
            write_atomically(self._state_dir / AGREED_NAME, document, mode=0o640, outlives_power=False)


def _load_agreed(state_dir: Path) -> dict[str, str]:
    try:
        found = json.loads((state_dir / AGREED_NAME).read_bytes())
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
