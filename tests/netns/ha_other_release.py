"""The other box of a pair, of another release: heartbeats and the replication link as a script says, no more.

Arguments: its state directory, and JSON: ``role``, ``local``, ``peer``, ``key``, ``facts`` (what it says of itself),
``beat`` (the version of its heartbeats), ``tail`` (bytes that they have more), ``frames`` (what it sends first:
kind and object), ``answers`` (by verb; every other question is answered as a release without the verb does),
``acknowledges`` (whether it does with entries).

A line on stdin is a question to the other box: [verb, arguments]; an empty one asks for the report.  The answer to
each is a line on stdout.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lbfast.ha.election import Beat, Standing
from lbfast.ha.link import Link, LinkError, dial, make_context, read_pinned
from lbfast.ha.wire import Guard, Heard, pack_beat

LIFE = 1000
PORT, REPLICATION_PORT = 6694, 7778
EVERY_S = 0.2  # its description, more often than a real one's


class OtherRelease:
    """What it has heard, and what it says."""

    def __init__(self, state_dir: Path, script: dict[str, Any]) -> None:
        self.state_dir, self.script = state_dir, script
        self.is_primary = script["role"] == "primary"
        self.guard = Guard(bytes.fromhex(script["key"]), LIFE)
        self.frames: Counter[str] = Counter()
        self.questions: list[dict[str, Any]] = []
        self.heard_facts: dict[str, Any] = {}
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.link: Link | None = None
        self.links = 0
        self.claim = 0  # of the other box, which is granted it

    async def run(self) -> None:
        beating = asyncio.create_task(self.beat())
        linking = asyncio.create_task(self.listen() if self.is_primary else self.call())
        loop = asyncio.get_running_loop()
        print("READY", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            said = await self.ask(*json.loads(line)) if line.strip() else self.report()
            print(json.dumps(said), flush=True)
        for task in (beating, linking):
            task.cancel()
        await asyncio.gather(beating, linking, return_exceptions=True)

    def report(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "questions": self.questions,
            "facts": self.heard_facts,
            "beats": self.guard.counts,
            "links": self.links,
        }

    async def ask(self, verb: str, args: dict[str, Any]) -> Any:
        assert self.link is not None
        self.link.put_json("Q", {"id": 7, "verb": verb, "args": args})
        return await self.answers.get()

    # --- heartbeats ---------------------------------------------------------------

    async def beat(self) -> None:
        sequence = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((self.script["local"], PORT))
            while True:
                sequence += 1
                self.read(sock)
                try:
                    sock.sendto(self.datagram(sequence), (self.script["peer"], PORT))
                except OSError:
                    pass  # the other box is not there yet
                await asyncio.sleep(0.1)

    def datagram(self, sequence: int) -> bytes:
        standing = Standing.ACTIVE if self.is_primary else Standing.PASSIVE
        beat = Beat(LIFE, standing, 4, self.is_primary, True, granted=0 if self.is_primary else self.claim)
        plain = pack_beat(beat, self.guard.known_life, sequence, 0, self.guard.key)[:-32]
        body = plain[:4] + bytes([self.script["beat"]]) + plain[5:] + bytes(self.script.get("tail", 0))
        return body + hmac.digest(self.guard.key, body, "sha256")

    def read(self, sock: socket.socket) -> None:
        while True:
            try:
                datagram = sock.recv(2048)
            except OSError:
                return
            found = self.guard.check(datagram)
            if isinstance(found, Heard):
                self.claim = found.beat.claim

    # --- the link -----------------------------------------------------------------

    async def call(self) -> None:
        context = make_context(self.state_dir, is_server=False, peer=read_pinned(self.state_dir))
        while True:
            try:
                link = await dial(self.script["peer"], REPLICATION_PORT, self.script["local"], context)
                await self.use(link)
            except (OSError, TimeoutError, EOFError, LinkError):
                await asyncio.sleep(0.1)

    async def listen(self) -> None:
        context = make_context(self.state_dir, is_server=True, peer=read_pinned(self.state_dir))
        server = await asyncio.start_server(self.accept, self.script["local"], REPLICATION_PORT, ssl=context)
        await server.serve_forever()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.use(Link(reader, writer))
        except (OSError, EOFError, LinkError):
            pass

    async def use(self, link: Link) -> None:
        self.link = link
        self.links += 1
        for kind, document in self.script.get("frames", ()):
            link.put_json(kind, document)
        describing = asyncio.create_task(self.describe(link))
        try:
            while True:
                frame = await link.receive()
                self.frames[frame.kind] += 1
                if frame.kind in "BEZ" and self.script.get("acknowledges", True):
                    link.put("A", frame.data[:8])
                elif frame.kind == "F":
                    self.heard_facts = frame.json()
                elif frame.kind == "Q":
                    self.reply(link, frame.json())
                elif frame.kind == "R":
                    self.answers.put_nowait(frame.json()["answer"])
        finally:
            describing.cancel()
            link.close()

    async def describe(self, link: Link) -> None:
        while True:
            link.put_json("F", self.script["facts"])
            await asyncio.sleep(EVERY_S)

    def reply(self, link: Link, question: dict[str, Any]) -> None:
        self.questions.append(question)
        verb = question["verb"]
        unknown = {"ok": False, "message": f"the peer has no verb {verb!r}: is it an older release?"}
        link.put_json("R", {"id": question["id"], "answer": self.script["answers"].get(verb, unknown)})


if __name__ == "__main__":
    asyncio.run(OtherRelease(Path(sys.argv[1]), json.loads(sys.argv[2])).run())
