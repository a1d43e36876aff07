"""Keeps configuration and admin state the same on both boxes, through each box's own control process.

A commit goes to the peer first: if the peer refuses, nothing is changed; if it is
away, it catches up when it is back.  Who catches up is decided by the
*generation*: it grows with each commit, on every box that takes part, and is kept
with the digest of the configuration it belongs to.  A box that starts with
something else (an old file) has generation 0.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbfast.config.files import write_atomically
from lbfast.control.protocol import MAX_REQUEST, ControlError, decode_answer, encode_request
from lbfast.ha.replication import Replication

GENERATION_NAME = "pair_generation.json"
Document = dict[str, Any]
Ask = Callable[..., Awaitable[Document]]


async def ask_control(path: Path, verb: str, **args: Any) -> Document:
    """A verb of this box's own control process; ControlError as it says."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=4 * MAX_REQUEST)
    except OSError as error:
        raise ControlError("refused", f"control does not answer: {error.strerror}") from None
    try:
        writer.write(encode_request(verb, args))
        await writer.drain()
        async with asyncio.timeout(90):
            answer: Document = decode_answer(await reader.readline())
            return answer
    except (OSError, TimeoutError) as error:
        raise ControlError("refused", f"control does not answer: {error or 'timeout'}") from None
    finally:
        writer.close()


@dataclass(frozen=True)
class Generation:
    """Which commit of the pair this box has."""

    number: int = 0
    digest: str = ""


def load_generation(state_dir: Path) -> Generation:
    try:
        found = json.loads((state_dir / GENERATION_NAME).read_bytes())
        return Generation(int(found["number"]), str(found["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Generation()


def save_generation(state_dir: Path, generation: Generation) -> None:
    document = json.dumps({"number": generation.number, "digest": generation.digest})
    write_atomically(state_dir / GENERATION_NAME, document.encode(), mode=0o640)


def forget_generation(state_dir: Path) -> None:
    (state_dir / GENERATION_NAME).unlink(missing_ok=True)


class ConfigSync:
    """One per process.  ``link`` is the replication of now, ``digest`` that of the running configuration."""

    def __init__(
        self,
        state_dir: Path,
        ask: Ask,
        link: Callable[[], Replication | None],
        digest: Callable[[], str],
        is_primary: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._state_dir = state_dir
        self._ask = ask
        self._link = link
        self._digest = digest
        self._is_primary = is_primary
        self._tell = tell
        self._generation = load_generation(state_dir)
        self._lock = asyncio.Lock()
        self._undo: Document | None = None
        self._told = ""
        self._is_committing = False
        self._alone_marks = ""  # what the marks were when the peer was last in step

    # --- facts --------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """0 when what runs here is not what was agreed."""
        generation = self._generation
        if generation.digest == "" and self._is_primary():
            return max(1, generation.number)  # just paired: the primary's configuration is the pair's
        return generation.number if generation.digest == self._digest() else 0

    def facts(self) -> Document:
        return {
            "generation": self.generation,
            "marks": self._marks(),
            "marks_alone": bool(self._alone_marks) and self._alone_marks != self._marks(),
        }

    def _marks(self) -> str:
        """A digest of the admin state as it is kept."""
        try:
            return hashlib.sha256((self._state_dir / "state.json").read_bytes()).hexdigest()
        except OSError:
            return ""

    # --- this box commits -----------------------------------------------------------

    async def replicate(self, **wish: Any) -> Document:
        """Before this box commits: the peer does.  ControlError when it refuses."""
        self._is_committing = True
        link = self._link()
        self._undo = None
        if link is None:
            return {"peer": "away"}
        number = self.generation + 1
        before = await self._ask("replica_read")
        answer = await self._to_peer(link, "commit", {"number": number, "wish": wish})
        if answer is None:
            self._is_committing = False
            raise ControlError("refused", "the peer did not answer: nothing was changed here; see `lbfast ha status`")
        if answer.get("ok") is not True:
            self._is_committing = False
            raise ControlError("refused", f"the peer refused, nothing was changed: {answer.get('message', '')}")
        self._undo = {"number": self.generation, "wish": {**before, "ids": json.dumps(before["ids"])}}
        return {"peer": "committed"}

    async def replicated(self, ok: bool) -> Document:
        """This box has committed too, or could not: then the peer goes back."""
        undo, self._undo = self._undo, None
        link = self._link()
        if ok:
            for _ in range(100):  # the plan of the commit is on its way to this process
                if self._digest() != self._generation.digest:
                    break
                await asyncio.sleep(0.02)
            self._agree(max(1, self._generation.number) + 1)
        elif undo is not None and link is not None:
            await self._to_peer(link, "commit", undo)
        self._is_committing = False
        return {}

    async def _to_peer(self, link: Replication, verb: str, args: Document) -> Document | None:
        try:
            return await link.ask(verb, args)
        except (TimeoutError, OSError, asyncio.CancelledError):
            return None

    def _agree(self, number: int) -> None:
        self._generation = Generation(number, self._digest())
        save_generation(self._state_dir, self._generation)

    # --- the peer asks ----------------------------------------------------------------

    async def on_commit(self, args: Document) -> Document:
        """The peer is about to commit."""
        async with self._lock:
            try:
                await self._commit_here(args["wish"], int(args["number"]))
            except ControlError as error:
                return {"ok": False, "message": error.message}
            return {"ok": True}

    async def on_fetch(self, _args: Document) -> Document:
        """The peer has been away."""
        try:
            found = await self._ask("replica_read")
            return {"ok": True, "number": self.generation, "wish": {**found, "ids": json.dumps(found["ids"])}}
        except ControlError as error:
            return {"ok": False, "message": error.message}

    async def on_marks(self, _args: Document) -> Document:
        try:
            return {"ok": True, **await self._ask("replica_marks_read")}
        except ControlError as error:
            return {"ok": False, "message": error.message}

    async def _commit_here(self, wish: Document, number: int) -> None:
        before = self._digest()
        report = await self._ask("replica_commit", **wish)
        if report.get("steps"):
            for _ in range(250):  # the plan of the commit is on its way to this process
                if self._digest() != before:
                    break
                await asyncio.sleep(0.02)
        self._agree(number)

    # --- catching up --------------------------------------------------------------------

    async def compare(self, facts: Document) -> None:
        """The peer has described itself: catch up where it is ahead."""
        if self._lock.locked() or self._is_committing or "generation" not in facts:
            return
        async with self._lock:
            with suppress(asyncio.CancelledError):
                await self._compare(facts)

    async def _compare(self, facts: Document) -> None:
        link, theirs, ours = self._link(), int(facts["generation"]), self.generation
        if link is None:
            return
        if facts.get("digest") == self._digest():
            if ours < theirs or self._generation.digest != self._digest():
                self._agree(max(ours, theirs, 1))
            await self._compare_marks(link, facts)
        elif theirs > ours or (theirs == ours and not self._is_primary()):
            await self._catch_up(link)

    async def _catch_up(self, link: Replication) -> None:
        answer = await self._to_peer(link, "fetch", {})
        if answer is None or answer.get("ok") is not True:
            return
        try:
            await self._commit_here(answer["wish"], int(answer["number"]))
        except ControlError as error:
            if error.message != self._told:
                self._told = error.message
                self._tell(f"the peer's configuration cannot be taken over: {error.message}")
        else:
            self._told = ""
            self._tell("the configuration was taken over from the peer")

    async def _compare_marks(self, link: Replication, facts: Document) -> None:
        ours = self.facts()
        if facts.get("marks") == ours["marks"]:
            self._alone_marks = ours["marks"] or "none"
            return
        they_win = facts.get("marks_alone") and not ours["marks_alone"]
        we_win = ours["marks_alone"] and not facts.get("marks_alone")
        if not they_win and (we_win or self._is_primary()):
            return
        answer = await self._to_peer(link, "marks", {})
        if answer is not None and answer.get("ok") is True:
            try:
                await self._ask("replica_marks_write", marks=json.dumps(answer["marks"]))
            except ControlError as error:
                self._tell(f"the peer's admin state cannot be taken over: {error.message}")
            self._alone_marks = ""
