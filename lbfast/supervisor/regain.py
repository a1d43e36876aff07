"""Regain: a supervisor that starts while workers of a killed one still serve gets back what that one had.

The facts are in a file of the runtime directory, written whenever they change; the descriptors
come from the workers themselves.  What no living worker holds is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lbfast.config.paths import runtime_dir
from lbfast.supervisor.estate import Estate
from lbfast.supervisor.lock import Lock
from lbfast.supervisor.orphans import Process
from lbfast.supervisor.recall import close_all, recall
from lbfast.supervisor.seats import Inbox
from lbfast.supervisor.store import listens, stored_name, stored_place

FILE = "estate.json"


def keep(estate: Estate) -> None:
    """Write the facts down; ``running`` is closed."""
    running = estate.fds.pop("running")
    try:
        document = os.pread(running, os.fstat(running).st_size, 0).decode()
    finally:
        os.close(running)
    new = runtime_dir() / f".{FILE}"
    new.write_text(json.dumps({**estate.facts, "running": document}))
    os.chmod(new, 0o600)
    os.replace(new, runtime_dir() / FILE)


def regain(orphans: list[Process], locks: list[Lock], kept: dict[str, int]) -> Estate | None:
    """Everything that is left, or None when that is too little; ``locks`` are this supervisor's own.

    ``kept``: what the service manager had.  What is taken of it is taken out.  Without a living worker it has to
    be all of the memory.
    """
    try:
        facts: dict[str, Any] = json.loads((runtime_dir() / FILE).read_text())
    except (OSError, ValueError):
        return None
    living = {orphan.pid for orphan in orphans}
    fds: dict[str, int] = {}
    people: list[list[object]] = []
    for name, index, seat, pid, *_ in facts["children"]:
        if index < 0 or pid not in living:
            continue
        answer = recall(seat)
        if answer is None:
            continue
        channel, held = answer
        fds[f"channel.{pid}"] = os.dup(channel.fileno())
        channel.close()
        people.append([name, index, seat, pid, True, False, True])
        for key, fd in held.items():
            if key in fds:
                os.close(fd)
            else:
                fds[key] = fd
    if not people and not memory_names(facts) <= kept.keys():
        return None
    for key in list(kept):
        if key not in fds and (key in memory_names(facts) or key.startswith("inbox.") or _is_door(facts, key, kept)):
            fds[key] = kept.pop(key)
    try:
        return _complete(facts, fds, people, locks)
    except BaseException:
        close_all(fds.values())
        raise


def memory_names(facts: Mapping[str, Any]) -> set[str]:
    names = {"table", "counters", "results", *(f"stick.{slot}" for slot in facts["sticks"])}
    return names | {f"{what}.{seat}" for what in ("slab", "ring") for seat in range(facts["slabs"])}


def _is_door(facts: Mapping[str, Any], key: str, kept: Mapping[str, int]) -> bool:
    """One of those that this configuration has, and that listens."""
    places = [stored_place(address, port) for _, _, address, port, _ in facts["listeners"]]
    return any(key.startswith(place) for place in places) and listens(kept[key])


def _complete(facts: dict[str, Any], fds: dict[str, int], people: list[list[object]], locks: list[Lock]) -> Estate:
    """Facts and descriptors as the supervisor itself would have passed them on."""
    seated = {seat for _, _, seat, *_ in people}
    dead = [[seat, pid] for _, index, seat, pid, *_ in facts["children"] if index >= 0 and seat not in seated]
    for seat in range(facts["slabs"]):
        if f"inbox.{seat}.receive" not in fds:
            fds.pop(f"inbox.{seat}.send", -1)
            inbox = Inbox.open()
            fds |= {f"inbox.{seat}.receive": inbox.receive, f"inbox.{seat}.send": inbox.send}
    listeners: list[list[object]] = []
    for service, label, address, port, _ in facts["listeners"]:
        held = [fds.pop(name) for name in sorted(fds) if name.startswith(stored_place(address, port))]
        fds |= {f"listener.{len(listeners)}.{turn}": fd for turn, fd in enumerate(held)}
        listeners.append([service, label, address, port, len(held)])
    for at, lock in enumerate(locks):
        fds[f"lock.{at}"] = lock.fileno()
    running = os.memfd_create("running", os.MFD_CLOEXEC)
    os.pwrite(running, facts["running"].encode(), 0)
    fds["running"] = running
    facts |= {
        "listeners": listeners,
        "children": people,
        "dead": dead,
        "web": [],
        "locks": [[os.fspath(lock.path), lock.variable] for lock in locks],
        "number": 0,
        "version": facts.get("version", "?"),
        "events": [],  # the file is not written anew when control has been told what waited: nothing is told twice
    }
    return Estate(facts, fds)


def held_by(places: Mapping[tuple[str, int], list[int]]) -> dict[str, int]:
    """In a worker: its listening sockets by name; the inode tells two of one place apart."""
    return {stored_name(address, port, fd): fd for (address, port), fds in places.items() for fd in fds}


def forget() -> None:
    """At the end of a run: there is nothing to regain."""
    for path in [runtime_dir() / FILE, *runtime_dir().glob("worker*.sock")]:
        Path(path).unlink(missing_ok=True)
