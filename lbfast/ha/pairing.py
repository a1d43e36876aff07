"""Makes a pair of two boxes: who asks becomes the primary, who is asked the secondary.

Four messages over TLS: hello (how to hash the password and a nonce come back), ask (the proof goes
over, the peer's proof comes back), both keep the pair *unconfirmed*, and the first
replication link with the pinned certificates confirms it on both sides.  What is
not confirmed within ``CONFIRM_S``, also after a crash, is forgotten on both.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from lbfast import __version__
from lbfast.control.protocol import ControlError
from lbfast.ha.link import (
    CERTIFICATE,
    Link,
    LinkError,
    dial,
    ensure_identity,
    fingerprint_of,
    make_context,
    make_secret,
    own_fingerprint,
)
from lbfast.ha.pair_file import Pair
from lbfast.ha.password import Challenge, PasswordStore, Patience, derive, is_proof, prove, read_challenge

CONFIRM_S = 10.0
MOST_ASKING = 16  # at the same time
_BROKEN = (OSError, ssl.SSLError, TimeoutError, EOFError, LinkError)
Document = dict[str, Any]


@dataclass(frozen=True)
class Introduction:
    """What one box knows of the other when both have agreed."""

    pair: Pair
    certificate: str  # of the peer, PEM


def check_addresses(local: str, peer: str) -> None:
    """ControlError for addresses that cannot be those of a pair."""
    for name, text in (("local", local), ("peer", peer)):
        try:
            ip_address(text)
        except ValueError:
            raise ControlError("bad_argument", f"{name}: {text[:60]!r} is not an IP address") from None
        _check_scope(name, text)
    if ip_address(local) == ip_address(peer):
        raise ControlError("bad_argument", f"local and peer are both {local}: the peer is the other box")
    if ip_address(local).version != ip_address(peer).version:
        raise ControlError("bad_argument", f"local {local} and peer {peer} are of different families")
    family = socket.AF_INET6 if ip_address(local).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((local, 0))
        except OSError:
            raise ControlError("bad_argument", f"local: {local} is not an address of this box") from None


def _check_scope(name: str, text: str) -> None:
    """Of a link-local address (RFC 4007): the interface that it is on."""
    scope = getattr(ip_address(text), "scope_id", None)
    if scope is not None and scope not in (interface for _, interface in socket.if_nameindex()):
        raise ControlError("bad_argument", f"{name}: {scope[:60]!r} is not an interface of this box")


async def ask_for_pair(
    state_dir: Path, local: str, peer: str, port: int, password: str, *, overwrite: bool
) -> tuple[Introduction, Link]:
    """The asking side, up to the agreement; the link is still open.  ControlError with nothing changed anywhere."""
    ensure_identity(state_dir, socket.gethostname())
    try:
        link = await dial(peer, port, local, make_context(state_dir, is_server=False, peer=None))
    except _BROKEN as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else (str(error) or type(error).__name__)
        raise ControlError(
            "refused",
            f"{peer} port {port} cannot be reached: {why}; "
            "is lbfast running there, without a peer, with a password set for the user loadbalancer?",
        ) from None
    if link.is_paired:
        link.close()
        raise ControlError("refused", f"{peer} is paired already; `lbfast ha unpair` there ends its pair")
    try:
        async with asyncio.timeout(15):
            return await _ask(link, state_dir, local, peer, password, overwrite), link
    except _BROKEN as error:
        link.close()
        raise ControlError("refused", f"{peer} broke the pairing off: {error or type(error).__name__}") from None
    except BaseException:
        link.close()
        raise


async def _ask(link: Link, state_dir: Path, local: str, peer: str, password: str, overwrite: bool) -> Introduction:
    ours, theirs = own_fingerprint(state_dir), link.fingerprint
    link.put_json("P", {"step": "hello", "version": __version__})
    hello = _answer_of((await link.receive()).json(), peer)
    try:
        challenge = read_challenge(hello.get("challenge"))
    except ValueError as error:
        raise ControlError("refused", f"{peer} cannot be trusted with a proof of the password: {error}") from None
    verifier = await asyncio.to_thread(_derive, password, challenge)
    key, identity = make_secret(), os.urandom(16).hex()
    nonce = str(hello["nonce"])
    request: Document = {
        "step": "ask",
        "proof": prove(verifier, "asking", nonce, ours, theirs),
        "certificate": (state_dir / CERTIFICATE).read_text(),
        "name": socket.gethostname(),
        "local": local,
        "peer": peer,
        "key": key,
        "id": identity,
        "overwrite": overwrite,
    }
    link.put_json("P", request)
    answer = _answer_of((await link.receive()).json(), peer)
    if not is_proof(str(answer["proof"]), verifier, "asked", nonce, ours, theirs):
        raise ControlError("refused", f"{peer} does not know its own password: somebody else answers there")
    certificate = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(str(answer["certificate"])))
    if fingerprint_of(ssl.PEM_cert_to_DER_cert(certificate)) != theirs:
        raise ControlError("refused", f"{peer} sent another certificate than it uses")
    pair = Pair(identity, "primary", local, peer, key, theirs, (), str(answer["name"]), "no")
    return Introduction(pair, certificate)


def _derive(password: str, challenge: Challenge) -> bytes:
    """In a thread of its own, which has less of a hurry than the heartbeats."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return derive(password, challenge)


def _answer_of(document: Document, peer: str) -> Document:
    if document.get("ok") is not True:
        raise ControlError("refused", f"{peer} refused: {document.get('message', 'without a reason')}")
    return document


@dataclass
class PairingDesk:
    """The asked side: answers while this box has a password and no pair.

    ``refuse`` says why this box cannot become a secondary (argument: whether its own services may go), or "".
    """

    state_dir: Path
    passwords: PasswordStore
    refuse: Callable[[bool], str]
    agreed: Callable[[Introduction], None]
    tell: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)
    _asking: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        link = Link(reader, writer)
        self._asking += 1
        try:
            if self._asking > MOST_ASKING:
                return
            async with asyncio.timeout(15):
                await self._answer(link)
                await reader.read(1)  # until the other end has read
        except (*_BROKEN, KeyError, ValueError, TypeError):
            pass  # whoever asked is told what we could tell, or is gone
        finally:
            self._asking -= 1
            link.close()

    async def _answer(self, link: Link) -> None:
        hello = (await link.receive()).json()
        if hello.get("version") != __version__:
            _refuse(link, f"it has lbfast {__version__}, you have {hello.get('version')}; update one of them first")
            return
        challenge, nonce = self.passwords.challenge(), os.urandom(16).hex()
        if challenge is None:
            _refuse(link, "no password is set there: `lbfast passwd` or its setup link sets one")
            return
        link.put_json("P", {"ok": True, "challenge": challenge.as_document(), "nonce": nonce})
        request = (await link.receive()).json()
        theirs = ssl.PEM_cert_to_DER_cert(str(request["certificate"]))
        prints = fingerprint_of(theirs), own_fingerprint(self.state_dir)
        verifier, now = self.passwords.verifier(), asyncio.get_running_loop().time()
        if (wait := self.patience.wait(now)) > 0:  # whether the password is right is not even looked at
            _refuse(link, f"too many wrong passwords were tried; try again in {wait:.0f} s")
            return
        if not is_proof(str(request["proof"]), verifier, "asking", nonce, *prints):
            self.patience.failed(now)
            self.tell(f"a pairing with a wrong password was refused, from {str(request.get('local'))[:64]!r}")
            _refuse(link, f"the password is wrong; it is the one {challenge.whose} there")
            return
        if reason := self.refuse(bool(request["overwrite"])):
            _refuse(link, reason)
            return
        pair = Pair(
            str(request["id"]),
            "secondary",
            str(request["peer"]),
            str(request["local"]),
            str(request["key"]),
            prints[0],
            (),
            str(request["name"]),
            "no",
        )
        own = (self.state_dir / CERTIFICATE).read_text()
        proof = prove(verifier, "asked", nonce, *prints)
        await link.send_json("P", {"ok": True, "proof": proof, "certificate": own, "name": socket.gethostname()})
        self.agreed(Introduction(pair, ssl.DER_cert_to_PEM_cert(theirs)))


def _refuse(link: Link, message: str) -> None:
    link.put_json("P", {"ok": False, "message": message})
