"""Keeps configuration, history, candidate and admin state the same on both boxes, through the control process of each.

A commit goes to the peer first: if the peer refuses, nothing is changed; if it is
away, it catches up when it is back.  Who catches up is decided by the
*generation*: it grows with each commit, on every box that takes part, and is kept
with the digest of the configuration it belongs to.  A box that starts with
something else (an old file) has generation 0.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lbfast.config.files import write_atomically
from lbfast.control.protocol import MAX_REQUEST, ControlError, decode_answer, encode_request
from lbfast.ha.confirm_sync import ConfirmSync
from lbfast.ha.history_sync import HistorySync
from lbfast.ha.kept_sync import AGREED_NAME, KeptSync, Part
from lbfast.ha.replication import Handler, Replication

GENERATION_NAME = "pair_generation.json"
_COMMIT_S = 120.0
_WISH = ("text", "ids", "file", "by", "reason", "removed", "waits")
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
        self._committing_until = 0.0  # of the loop's clock: control may die between its two questions
        self._taken = ("", "")  # the peer's digest and ours, when its configuration had been taken over
        self.history = HistorySync(state_dir, ask)
        self.kept = KeptSync(state_dir, ask, is_primary, tell)
        self.confirm = ConfirmSync(state_dir, ask)

    # --- facts --------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """0 when what runs here is not what was agreed."""
        generation = self._generation
        if generation.digest == "" and self._is_primary():
            return max(1, generation.number)  # just paired: the primary's configuration is the pair's
        return generation.number if generation.digest == self._digest() else 0

    def facts(self) -> Document:
        theirs, copy = self._taken
        return {
            "generation": self.generation,
            "digest_took": theirs if copy == self._digest() else "",
            "history": self.history.digest(),
            **self.confirm.facts(),
            **self.kept.facts(),
        }

    def forget(self) -> None:
        """The pair has ended: with the next peer everything begins anew."""
        for name in (GENERATION_NAME, AGREED_NAME):
            (self._state_dir / name).unlink(missing_ok=True)
        self._generation, self._taken = Generation(), ("", "")
        self.history = HistorySync(self._state_dir, self._ask)
        self.kept = KeptSync(self._state_dir, self._ask, self._is_primary, self._tell)

    def handlers(self) -> dict[str, Handler]:
        """The peer's questions."""
        return {
            "commit": self.on_commit,
            "fetch": self.on_fetch,
            "history": self._on_history,
            "version": self._on_version,
            **{part.key: partial(self._on_part, part) for part in self.kept.parts},
        }

    async def _on_history(self, args: Document) -> Document:
        return await self.history.on_history(args)

    async def _on_version(self, args: Document) -> Document:
        return await self.history.on_version(args)

    async def _on_part(self, part: Part, _args: Document) -> Document:
        return await self.kept.on_part(part)

    # --- this box commits -----------------------------------------------------------

    async def replicate(self, **wish: Any) -> Document:
        """Before this box commits: the peer does.  ControlError when it refuses."""
        version = json.loads(wish.pop("version"))
        link, self._undo = self._link(), None
        self._committing_until = asyncio.get_running_loop().time() + _COMMIT_S
        if link is None:
            return {"peer": "away"}
        try:
            before = await self._ask("replica_read")
            offer = {"number": self.generation + 1, "wish": wish, "version": version}
            answer = await self._to_peer(link, "commit", offer)
            if answer is None and self._link() is None:
                return {"peer": "away"}  # it has died meanwhile
            if answer is None:
                raise ControlError(
                    "refused", "the peer did not answer: nothing was changed here; see `lbfast ha status`"
                )
            if answer.get("ok") is not True:
                raise ControlError("refused", f"the peer refused, nothing was changed: {answer.get('message', '')}")
        except BaseException:
            self._committing_until = 0.0
            raise
        self._undo = {"number": self.generation, **_offer(before)}
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
        self._committing_until = 0.0
        return {}

    async def confirmed(self) -> Document:
        """What waited here stands now, and that counts for more than one revert on a box that did not hear of it."""
        self._agree(max(1, self._generation.number) + 2)
        if (link := self._link()) is not None:
            link.describe()
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
                await self._commit_here(args)
                self._agree(int(args["number"]))
            except ControlError as error:
                return {"ok": False, "message": error.message}
            return {"ok": True}

    async def on_fetch(self, _args: Document) -> Document:
        """The peer has been away."""
        try:
            return {"ok": True, "number": self.generation, **_offer(await self._ask("replica_read"))}
        except ControlError as error:
            return {"ok": False, "message": error.message}

    async def _commit_here(self, offer: Document) -> Document:
        """What the peer commits or has committed; what a later release says beside that is none of ours."""
        before = self._digest()
        wish = {key: value for key, value in offer["wish"].items() if key in _WISH}
        version = {"version": json.dumps(offer["version"])} if offer.get("version") else {}
        report = await self._ask("replica_commit", **wish, **version)
        if report.get("steps"):
            for _ in range(250):  # the plan of the commit is on its way to this process
                if self._digest() != before:
                    break
                await asyncio.sleep(0.02)
        return report

    # --- catching up --------------------------------------------------------------------

    async def compare(self, facts: Document) -> None:
        """The peer has described itself: catch up where it is ahead."""
        is_committing = asyncio.get_running_loop().time() < self._committing_until
        if self._lock.locked() or is_committing or "generation" not in facts:
            return
        async with self._lock:
            with suppress(asyncio.CancelledError):
                await self._compare(facts)

    async def _compare(self, facts: Document) -> None:
        link, theirs, ours = self._link(), int(facts["generation"]), self.generation
        if link is None:
            return
        follows = theirs > ours or (theirs == ours and not self._is_primary())
        is_same = self._is_same(facts)
        if follows and not (is_same and self._has_history(facts)):
            await self._catch_up(link, facts)
        elif is_same:
            if ours < theirs or self._generation.digest != self._digest():
                self._agree(max(ours, theirs, 1))
            if self._has_history(facts):  # of a candidate, the version counts that it was made from
                await self.confirm.compare(facts, is_primary=self._is_primary())
                await self.kept.compare(partial(self._to_peer, link), facts)

    def _is_same(self, facts: Document) -> bool:
        """The configuration, or a copy of it that another release describes differently."""
        ours, theirs = self._digest(), str(facts.get("digest", ""))
        return ours == theirs or self._taken == (theirs, ours) or facts.get("digest_took") == ours

    def _has_history(self, facts: Document) -> bool:
        return "history" not in facts or self.history.is_same(str(facts["history"]))

    async def _catch_up(self, link: Replication, facts: Document) -> None:
        answer = await self._to_peer(link, "fetch", {})
        if answer is None or answer.get("ok") is not True:
            return
        try:
            before = self._digest()
            await self._commit_here(answer)
            if "history" in facts and not await self.history.copy(partial(self._to_peer, link), str(facts["history"])):
                return
        except ControlError as error:
            if error.message != self._told:
                self._told = error.message
                self._tell(f"the peer's configuration cannot be taken over: {error.message}")
            return
        self._agree(int(answer["number"]))
        self._taken, self._told = (str(facts.get("digest", "")), self._digest()), ""
        if self._digest() != before:
            self._tell("the configuration was taken over from the peer")


def _offer(found: Document) -> Document:
    """What runs here, as the peer takes it over; an earlier release takes no word more in the wish."""
    wish = {key: found[key] for key in _WISH if key in found}
    return {"wish": {**wish, "ids": json.dumps(found["ids"])}, "version": found.get("version")}
