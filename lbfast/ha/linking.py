"""Keeps the replication link: the primary listens, the secondary dials, path after path, for ever.

The secondary listens too, for nobody: whoever wants to make a pair with it hears in the handshake that it has a peer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lbfast.ha.link import Link, LinkError, dial, make_context, read_pinned
from lbfast.ha.pair_file import Pair
from lbfast.ha.replication import Replication
from lbfast.ha.skew import SkewError

RETRY_S = 0.3
REFUSED_S = 5.0  # after which the peer may have been updated
_BROKEN = (OSError, ssl.SSLError, TimeoutError, EOFError, LinkError, ValueError, KeyError, TypeError)


@dataclass
class Linking:
    """``replicate`` makes what runs on a new link."""

    pair: Pair
    state_dir: Path
    port: Callable[[], int]
    replicate: Callable[[Link], Replication]
    tell: Callable[[str], None]
    current: Replication | None = None
    trouble: str = "not connected yet"
    _servers: dict[str, asyncio.Server] = field(default_factory=dict)  # by address of ours
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _was_linked: bool = False
    _refusal: str = ""  # of a peer whose release is too far from ours

    async def run(self) -> None:
        """Until cancelled."""
        listening = asyncio.create_task(self._listen())
        try:
            await (listening if self.pair.is_primary else self._dial())
        finally:
            listening.cancel()
            for server in self._servers.values():
                server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(listening, *self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        context = make_context(self.state_dir, is_server=True, peer=read_pinned(self.state_dir))
        while True:
            wanted = {local for local, _ in self.pair.all_paths}
            for local in self._servers.keys() - wanted:
                self._servers.pop(local).close()
            for local in wanted - self._servers.keys():
                try:
                    self._servers[local] = await asyncio.start_server(
                        self._accept, local, self.port(), ssl=context, limit=4 << 20
                    )
                except OSError as error:
                    if self.pair.is_primary:
                        self.trouble = f"cannot listen on {local} port {self.port()}: {error.strerror}"
            await asyncio.sleep(1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.pair.is_primary:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._use(Link(reader, writer))
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _dial(self) -> None:
        context = make_context(self.state_dir, is_server=False, peer=read_pinned(self.state_dir))
        while True:
            for local, peer in self.pair.all_paths:
                try:
                    link = await dial(peer, self.port(), local, context)
                except _BROKEN as error:
                    self.trouble = f"cannot connect to {peer} port {self.port()}: {error or type(error).__name__}"
                    continue
                await self._use(link)
                break
            await asyncio.sleep(REFUSED_S if self._refusal else RETRY_S)

    async def _use(self, link: Link) -> None:
        """Replicate until it breaks.  A new link replaces an old one: the peer would not have made it otherwise."""
        if link.fingerprint != self.pair.peer_fingerprint:
            link.close()
            self.trouble = f"a machine with the certificate {link.fingerprint[:16]}... is not the peer"
            return
        if self.current is not None:
            self.current.link.close()
        replication = self.current = self.replicate(link)
        try:
            await replication.run()
        except SkewError as error:
            if str(error) != self._refusal:
                self.tell(f"there is no replication: {error}")
            self.trouble = self._refusal = str(error)
        except _BROKEN as error:
            if not self._refusal:
                self.trouble = f"the link broke: {error or type(error).__name__}"
        finally:
            if self.current is replication:
                self.current = None
        if self.current is None and self._was_linked:
            self._was_linked = False
            self.tell(f"the replication link is down: {self.trouble}")

    def meet(self) -> None:
        """The peer has described itself, and speaks what we understand."""
        self._refusal = ""
        if not self._was_linked:
            self.tell("the replication link is up")
        self._was_linked = True
