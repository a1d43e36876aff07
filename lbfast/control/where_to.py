"""Where a client would go: the schedulers foretold, as far as they can be; pure.

``hash`` is exact as long as loads do not matter, ``wlc`` holds for this moment,
``wrr`` takes turns and cannot be foretold; the wording says which of these it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from lbfast.model.state import Effective, Scheduler


@dataclass(frozen=True)
class Candidate:
    """A real server as far as choosing is concerned."""

    label: str
    id: bytes
    state: Effective
    weight: int
    connections: int
    clients: int  # entries of the persistence table that name it
    max_connections: int  # 0 = no limit
    note: str = ""  # why it is not up: who drained it, what the probe said

    @property
    def is_full(self) -> bool:
        return 0 < self.max_connections <= self.connections

    @property
    def takes_new(self) -> bool:
        return self.state is Effective.UP and self.weight > 0 and not self.is_full


@dataclass(frozen=True)
class Forecast:
    """``label``: the one server it would be, None when it cannot be said or there is none."""

    label: str | None
    words: str  # continues a sentence: "it would go to ..."


def choose_next(
    scheduler: Scheduler, service_id: bytes, key: str, reals: Sequence[Candidate], fallback: Candidate | None
) -> Forecast:
    """Where a client that has no entry goes among these real servers."""
    able = [real for real in reals if real.takes_new]
    if not able:
        return _without_reals(fallback)
    if len(able) == 1:
        return Forecast(able[0].label, f"to {able[0].label}, the only one that takes new clients")
    if scheduler is Scheduler.HASH:
        nearest = able[nearest_by_hash(service_id, key, [(real.id, real.weight) for real in able])]
        return Forecast(
            nearest.label, f"to {nearest.label}, by the hash of its address (unless that one is overloaded by then)"
        )
    if scheduler is Scheduler.WLC:
        return _least_loaded(able)
    return Forecast(None, f"to one of {_listed(able)}: they take turns by weight")


def _without_reals(fallback: Candidate | None) -> Forecast:
    if fallback is not None and fallback.state in (Effective.UP, Effective.CHECKING):
        return Forecast(fallback.label, f"to the fallback server ({fallback.label}): no real server takes new clients")
    return Forecast(None, "nowhere: no other real server takes new clients, and it would be refused")


def _least_loaded(able: Sequence[Candidate]) -> Forecast:
    def load(real: Candidate) -> Fraction:
        return Fraction(max(real.connections, real.clients) + 1, real.weight)

    least = min(load(real) for real in able)
    tied = [real for real in able if load(real) == least]
    if len(tied) > 1:
        return Forecast(None, f"to one of {_listed(tied)}: now equally loaded, they take turns")
    return Forecast(tied[0].label, f"to {tied[0].label}, now the least loaded")


def nearest_by_hash(service_id: bytes, key: str, reals: list[tuple[bytes, int]]) -> int:
    """Index of the real server that the ``hash`` scheduler chooses: the data plane's own function."""
    from lbfast._sched import rendezvous  # here, so that the rest of this file needs nothing compiled

    return int(rendezvous(service_id, key, reals))


def _listed(reals: Sequence[Candidate]) -> str:
    labels = [real.label for real in reals]
    if len(labels) > 5:
        return ", ".join(labels[:4]) + f" and {len(labels) - 4} others"
    return ", ".join(labels[:-1]) + " or " + labels[-1]
