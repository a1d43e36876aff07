"""Measures a whole resync of the pair, without a network between.

    python bench/replication.py resync [--entries 1000000] [--turns 5]

Two processes, each with a table, joined by the real link (TCP on the loopback, TLS 1.3, pinned certificates);
seconds from the first record to the moment when the passive one has applied everything and the active one knows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP)]

from lbfast._journal import Journal  # noqa: E402
from lbfast._replica import Replica  # noqa: E402
from lbfast._shm import now_ms  # noqa: E402
from lbfast._stick import StickTable  # noqa: E402
from lbfast.ha.link import Link, dial, ensure_identity, make_context  # noqa: E402
from lbfast.ha.plan import HaPlan, RealPlan, ServicePlan  # noqa: E402
from lbfast.ha.replication import RECORD_BYTES, Replication  # noqa: E402
from lbfast.model.pair import HaSettings  # noqa: E402

_RECORD = struct.Struct("<16sIIIIIIBBBB")  # _replica.pxd
assert _RECORD.size == RECORD_BYTES


def make_plan() -> HaPlan:
    real = RealPlan(str(UUID(int=1)), 1, "one", False)
    service = ServicePlan(
        id=str(UUID(int=100)),
        slot=0,
        label="s",
        address="192.0.2.1",
        interface=None,
        port=443,
        is_deferring=True,
        is_persistent=True,
        timeout_ms=600_000,
        is_movable=False,
        reals=(real,),
    )
    return HaPlan(HaSettings(), (service,), 1, "")


def fill(entries: int) -> StickTable:
    """A table that knows so many clients."""
    table = StickTable.create(entries)
    replica = Replica({0: table})
    replica.set_peer({0: 0}, {1: (1, 1)})
    for first in range(0, entries, 10_000):
        keys = (bytes(10) + b"\xff\xff" + struct.pack(">I", 0x0A000000 + it) for it in range(first, first + 10_000))
        records = (_RECORD.pack(key, 0, 1, 1000, 1000, 500, 0xFFFFFFFF, 0, 2, 0, 0) for key in keys)
        replica.apply(b"".join(records), 0, now_ms())
    return table


def replication(link: Link, table: StickTable, *, is_active: bool) -> Replication:
    plan = make_plan()
    return Replication(
        link=link,
        replica=Replica({0: table}),
        journal=Journal.create(1),
        plan=lambda: plan,
        is_active=lambda: is_active,
        now=now_ms,
        facts=dict,
        heard=lambda _: None,
        handlers={},
        take_images=lambda _: None,
        tell=lambda message: print(message, file=sys.stderr),
    )


async def be_passive(directory: Path, port: int, pinned: str, entries: int, said: int) -> None:
    context = make_context(directory, is_server=False, peer=pinned)
    job = replication(await dial("127.0.0.1", port, "127.0.0.1", context), StickTable.create(entries), is_active=False)
    task = asyncio.create_task(job.run())
    while not task.done():
        if job.is_synced:
            os.write(said, str(job.replica.applied).encode())
            break
        await asyncio.sleep(0.001)
    await asyncio.gather(task, return_exceptions=True)


async def be_active(directory: Path, pinned: str, table: StickTable, told: asyncio.Queue[int]) -> float:
    """Seconds of one resync; ``told`` gets the port."""
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = replication(Link(reader, writer), table, is_active=True)
        began = time.monotonic()
        task = asyncio.create_task(job.run())
        while not (job.is_synced or task.done()):
            await asyncio.sleep(0.001)
        done.set_result(time.monotonic() - began)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    context = make_context(directory, is_server=True, peer=pinned)
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, limit=4 << 20)
    told.put_nowait(server.sockets[0].getsockname()[1])
    try:
        return await done
    finally:
        server.close()


async def one_resync(boxes: tuple[Path, Path], table: StickTable, entries: int) -> float:
    certificates = [(box / "pair_cert.pem").read_text() for box in boxes]
    told: asyncio.Queue[int] = asyncio.Queue()
    active = asyncio.create_task(be_active(boxes[0], certificates[1], table, told))
    port = await told.get()
    heard, said = os.pipe()
    words = [sys.executable, __file__, "passive", str(boxes[1]), str(port), str(boxes[0]), str(entries), str(said)]
    child = await asyncio.create_subprocess_exec(*words, pass_fds=[said])
    os.close(said)
    took = await active
    await child.wait()
    applied = int(os.read(heard, 32) or b"0")
    os.close(heard)
    if applied < len(table) * 0.999:
        raise SystemExit(f"{applied} of {len(table)} entries came over")
    return took


def resync(entries: int, turns: int) -> None:
    table = fill(entries)
    with tempfile.TemporaryDirectory() as directory:
        boxes = (Path(directory) / "a", Path(directory) / "b")
        for box in boxes:
            box.mkdir()
            ensure_identity(box, box.name)
        took = [asyncio.run(one_resync(boxes, table, entries)) for _ in range(turns)]
    figures = {"entries": len(table), "turns": turns, "median_s": statistics.median(took), "worst_s": max(took)}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def main() -> None:
    if sys.argv[1:2] == ["passive"]:
        directory, port, peer, entries, said = sys.argv[2:]
        pinned = (Path(peer) / "pair_cert.pem").read_text()
        asyncio.run(be_passive(Path(directory), int(port), pinned, int(entries), int(said)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["resync"])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    resync(options.entries, options.turns)


if __name__ == "__main__":
    main()
