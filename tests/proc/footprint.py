"""What lbfast occupies: memory, descriptors, pipes, entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import Lbfast, fd_census


@dataclass(frozen=True)
class Footprint:
    """One look at all processes of lbfast."""

    memory: Mapping[str, int]  # private bytes, by process
    shared: int  # bytes of the tables, slabs and rings that have been touched
    descriptors: Mapping[str, int]  # by process, pipes left out
    pipes: int
    connections: int
    entries: int
    holds: int


def footprint(lb: Lbfast, service: str = "Symphony") -> Footprint:
    processes = {"supervisor": lb.pid, **lb.children()}
    census = {name: list(fd_census(pid).values()) for name, pid in processes.items()}
    shown = lb.call("persistence_show", service=service, limit=100_000)
    overview = lb.call("overview")["virtual_services"]
    return Footprint(
        memory={name: sum(_rollup(pid, "Private_Clean", "Private_Dirty")) for name, pid in processes.items()},
        shared=sum(sum(_rollup(pid, "Pss_Shmem")) for pid in processes.values()),
        descriptors={name: sum(not it.startswith("pipe:") for it in found) for name, found in census.items()},
        pipes=sum(it.startswith("pipe:") for found in census.values() for it in found) // 2,
        connections=next(it["connections"] for it in overview if it["label"] == service),
        entries=shown["count"],
        holds=sum(entry["connections"] for entry in shown["entries"]),
    )


def _rollup(pid: int, *keys: str) -> list[int]:
    """Sums over all mappings of a process, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return [int(fields[key].split()[0]) << 10 for key in keys]
