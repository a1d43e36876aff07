"""Where pairs begin and end on this box: answers pairings, asks for one, confirms, forgets, breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lbfast._shm import now_ms
from lbfast.config.files import write_atomically
from lbfast.config.former import load_former, make_former, save_former
from lbfast.control.protocol import ControlError
from lbfast.ha.election import HaState
from lbfast.ha.link import PEER_CERTIFICATE, make_context, own_fingerprint
from lbfast.ha.pair_file import remove_pair, save_maintenance, save_pair
from lbfast.ha.pairing import CONFIRM_S, Introduction, PairingDesk, ask_for_pair, check_addresses
from lbfast.ha.password import Challenge, FirstOf, PasswordFile, PasswordStore
from lbfast.ha.web_user import WebUser

if TYPE_CHECKING:
    from lbfast.ha.process import HaProcess

_LOOK_S = 0.05
_RETRY_S = 1.0
_RAISE_S = 20.0  # the kernel looks for duplicates of IPv6 addresses for seconds


class Desk:
    """One per process."""

    def __init__(self, process: HaProcess) -> None:
        self._process = process
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._raised: asyncio.Future[str] | None = None  # for what the supervisor says: what was in the way, or ""

    # --- life -------------------------------------------------------------------

    def follow(self) -> None:
        """Listen for pairings while there is no pair; watch one that is not confirmed."""
        pair = self._process.pair
        if pair is None and self._task is None:
            self._task = asyncio.create_task(self._listen())
        elif pair is not None and self._task is not None:
            self._task.cancel()
            self._task = None
        if pair is not None and not pair.is_confirmed and self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(CONFIRM_S, self._forget_unconfirmed)

    async def stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def confirm(self) -> None:
        """The peer has spoken over the link with the pinned certificates: it has kept the pair too."""
        pair = self._process.pair
        if pair is None or pair.is_confirmed:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._process.pair = replace(pair, confirmed="yes")
        save_pair(self._process.setup.state_dir, self._process.pair)
        save_former(self._process.setup.state_dir, None)
        self._process.tell(f"paired with {pair.peer_name} ({pair.peer}), this box is the {pair.role}")

    async def _listen(self) -> None:
        process = self._process
        state_dir = process.setup.state_dir
        desk = PairingDesk(state_dir, _OpenPasswords(process), self._why_not, self._agree, process.tell)
        told = ""
        while True:
            if desk.passwords.challenge() is not None:
                try:
                    context = make_context(state_dir, is_server=True, peer=None)
                    port = process.plan.settings.replication_port
                    server = await asyncio.start_server(desk.serve, None, port, ssl=context, limit=1 << 20)
                except OSError as error:
                    if str(error) != told:
                        told = str(error)
                        process.tell(f"pairing: cannot listen: {error}")
                else:
                    try:
                        while desk.passwords.challenge() is not None:
                            await asyncio.sleep(_RETRY_S)
                    finally:
                        server.close()
            await asyncio.sleep(_RETRY_S)

    # --- being asked --------------------------------------------------------------

    def _why_not(self, overwrite: bool) -> str:
        process = self._process
        if process.pair is not None or self._is_busy:
            return "it is paired already, or being paired"
        if process.plan.services and not overwrite:
            labels = ", ".join(service.label for service in process.plan.services[:4])
            return f"it has virtual services of its own ({labels}); --overwrite lets them go"
        return ""

    def _agree(self, introduction: Introduction) -> None:
        self._begin(introduction)

    # --- asking -------------------------------------------------------------------

    async def pair(self, local: str, peer: str, password: str, overwrite: bool = False) -> dict[str, Any]:
        """Ask the peer; answered when both have kept it, or ControlError and nobody has."""
        process = self._process
        if process.pair is not None:
            raise ControlError(
                "refused", f"this box is paired with {process.pair.peer} already; `lbfast ha unpair` first"
            )
        if self._is_busy:
            raise ControlError("busy", "another pairing is under way")
        check_addresses(local, peer)
        state_dir, port = process.setup.state_dir, process.plan.settings.replication_port
        self._is_busy = True
        try:
            introduction, link = await ask_for_pair(state_dir, local, peer, port, password, overwrite=overwrite)
            link.close()
            self._begin(introduction)
            for _ in range(int(CONFIRM_S / _LOOK_S)):
                await asyncio.sleep(_LOOK_S)
                if process.pair is None or process.pair.is_confirmed:
                    break
            if process.pair is None or not process.pair.is_confirmed:
                trouble = "" if process.linking is None else process.linking.trouble
                self._undo()
                raise ControlError("refused", f"{peer} agreed, but did not come back: {trouble}; nothing was changed")
            return {
                "role": "primary",
                "local": local,
                "peer": peer,
                "peer_name": introduction.pair.peer_name,
                "fingerprint": own_fingerprint(state_dir),
                "peer_fingerprint": introduction.pair.peer_fingerprint,
            }
        finally:
            self._is_busy = False

    async def unpair(self, force: bool = False) -> dict[str, Any]:
        """End the pair on both boxes; the active one keeps the addresses."""
        process = self._process
        if process.pair is None:
            raise ControlError("refused", "this box has no peer")
        current = None if process.linking is None else process.linking.current
        told = False
        if current is not None:
            with suppress(TimeoutError, OSError, asyncio.CancelledError):
                told = bool((await current.ask("unpair", {})).get("ok"))
        if not told and not force:
            raise ControlError(
                "refused", f"the peer {process.pair.peer} cannot be told; --force ends the pair on this box alone"
            )
        peer = process.pair.peer
        self._undo()
        return {"peer": peer, "peer_told": told}

    async def on_unpair(self, _args: dict[str, Any]) -> dict[str, Any]:
        """The peer ends the pair."""
        asyncio.get_running_loop().call_later(0.2, self._undo)  # after the answer has left
        return {"ok": True}

    # --- after a pair -----------------------------------------------------------

    async def take_addresses(self, order: str) -> dict[str, Any]:
        """They stayed with the former peer: raised here, for good, unless somebody has them."""
        process = self._process
        if self._is_busy:
            raise ControlError("busy", "a pairing or another takeover is under way")
        process.tell(order)
        started, self._is_busy = now_ms(), True
        self._raised = asyncio.get_running_loop().create_future()
        process.say({"event": "pair", "paired": False, "active": True})
        try:
            async with asyncio.timeout(_RAISE_S):
                trouble = await self._raised
        except TimeoutError:
            trouble = "the supervisor does not answer in time"
        finally:
            self._is_busy, self._raised = False, None
        if trouble:
            raise ControlError("refused", f"the service addresses cannot be raised: {trouble}")
        save_former(process.setup.state_dir, None)
        process.tell("this box has the service addresses now")
        return {"state": HaState.ACTIVE.value, "took_ms": now_ms() - started}

    def on_raised(self, trouble: str) -> None:
        """The supervisor has done what the end of a pair, or a takeover after it, asks for."""
        if self._raised is not None and not self._raised.done():
            self._raised.set_result(trouble)

    # --- both -------------------------------------------------------------------

    def _begin(self, introduction: Introduction) -> None:
        state_dir = self._process.setup.state_dir
        write_atomically(state_dir / PEER_CERTIFICATE, introduction.certificate.encode(), mode=0o644)
        save_pair(state_dir, introduction.pair)
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._process.begin(introduction.pair)
        self.follow()

    def _forget_unconfirmed(self) -> None:
        self._deadline = None
        if self._process.pair is not None and not self._process.pair.is_confirmed:
            self._process.tell("the pairing was not confirmed by the other box: it is forgotten")
            self._undo()

    def _undo(self) -> None:
        """No pair any more: who holds the addresses keeps them, for good; the other one notes that it has none.

        A pairing that came to nothing changes nothing: who had the addresses before it has them again.
        """
        process = self._process
        if process.pair is None:
            return
        state_dir = process.setup.state_dir
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        holding = process.duty is not None and process.duty.is_active
        if process.pair.is_confirmed:
            # Before the pair goes: a box that dies in between must not raise them.
            save_former(state_dir, None if holding else make_former(process.pair.peer))
        former = load_former(state_dir)
        holding = holding or former is None
        remove_pair(state_dir)
        (state_dir / PEER_CERTIFICATE).unlink(missing_ok=True)
        save_maintenance(state_dir, None)
        process.sync.forget()
        process.end(keep_addresses=True)
        process.pair = None
        process.say({"event": "pair", "paired": False, "active": holding})
        process.tell("this box has no peer any more; " + ("it keeps the addresses" if former is None else former.words))
        self.follow()


class _OpenPasswords:
    """The passwords that count at the moment: the configuration decides whether the web user's does."""

    def __init__(self, process: HaProcess) -> None:
        self._process = process
        state_dir = process.setup.state_dir
        self._file, self._web_user = PasswordFile(state_dir), WebUser(state_dir)

    def challenge(self) -> Challenge | None:
        return self._stores().challenge()

    def verifier(self) -> bytes:
        return self._stores().verifier()

    def _stores(self) -> FirstOf:
        web: list[PasswordStore] = [self._web_user] if self._process.plan.settings.pairing else []
        return FirstOf([*web, self._file])
