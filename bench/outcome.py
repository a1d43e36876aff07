"""One sample: what a piece of work cost one peer, and whether the figures may be used."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.peers import Peer
from bench.procs import MachineTime

# Connections that a client just closed still cost their proxy something.
SETTLE = 0.03


@dataclass
class Outcome:
    """``units`` of work done, e.g. requests; CPU is the proxy's own, ``busy_s`` is all cores, all processes."""

    units: float
    unit: str
    seconds: float
    errors: int = 0
    wrong: int = 0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    stolen_s: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)  # p50_us, p99_us, memory_bytes_per_connection ...

    @property
    def is_usable(self) -> bool:
        return self.errors == 0 and self.wrong == 0 and self.units > 0

    def as_record(self) -> dict[str, Any]:
        record = asdict(self)
        extra = record.pop("extra")
        if self.units > 0:
            record["cpu_us_per_unit"] = 1e6 * self.cpu_s / self.units
            record["busy_us_per_unit"] = 1e6 * self.busy_s / self.units
            record["units_per_second"] = self.units / self.seconds
        return {
            key: round(value, 6) if isinstance(value, float) else value for key, value in {**record, **extra}.items()
        }


class Meter:
    """Reads what a peer and the machine have used; ``charge`` puts the difference into an outcome."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.machine = MachineTime.now()
        self.cpu = peer.cpu()

    def charge(self, outcome: Outcome) -> Outcome:
        time.sleep(SETTLE)
        outcome.cpu_s = self.peer.cpu() - self.cpu
        machine = MachineTime.now()
        outcome.busy_s = machine.busy - self.machine.busy
        outcome.stolen_s = machine.stolen - self.machine.stolen
        return outcome
