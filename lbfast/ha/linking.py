"""Keeps the replication link: the primary listens, the secondary dials, path after path, for ever."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lbfast.ha.link import Link, LinkError, dial, make_context, read_pinned
from lbfast.ha.pair_file import Pair
from lbfast.ha.replication import Replication

RETRY_S = 0.3
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
    _servers: list[asyncio.Server] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _was_linked: bool = False

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await (self._listen() if self.pair.is_primary else self._dial())
        finally:
            for server in self._servers:
                server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        context = make_context(self.state_dir, is_server=True, peer=read_pinned(self.state_dir))
        missing = [local for local, _ in self.pair.all_paths]
        while True:
            for local in list(missing):
                try:
                    self._servers.append(
                        await asyncio.start_server(self._accept, local, self.port(), ssl=context, limit=4 << 20)
                    )
                    missing.remove(local)
                except OSError as error:
                    self.trouble = f"cannot listen on {local} port {self.port()}: {error.strerror}"
            await asyncio.sleep(1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            await asyncio.sleep(RETRY_S)

    async def _use(self, link: Link) -> None:
        """Replicate until it breaks.  A new link replaces an old one: the peer would not have made it otherwise."""
        if link.fingerprint != self.pair.peer_fingerprint:
            link.close()
            self.trouble = f"a machine with the certificate {link.fingerprint[:16]}... is not the peer"
            return
        if self.current is not None:
            self.current.link.close()
        replication = self.current = self.replicate(link)
        if not self._was_linked:
            self.tell("the replication link is up")
        self._was_linked = True
        try:
            await replication.run()
        except _BROKEN as error:
            self.trouble = f"the link broke: {error or type(error).__name__}"
        finally:
            if self.current is replication:
                self.current = None
        if self.current is None:
            self._was_linked = False
            self.tell(f"the replication link is down: {self.trouble}")
