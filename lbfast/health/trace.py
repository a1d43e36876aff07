"""How far one probe has come and what it saw: the words for a timeout, and for whoever asks step by step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from lbfast.health.certificates import Certificate


class Phase(Enum):
    """The parts of a probe, in their order."""

    CONNECT = "connect"
    TLS = "tls"
    REQUEST = "request"
    STATUS = "status"
    BODY = "body"
    SCRIPT = "script"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Step:
    """``at_ms``: since the probe began; the one that is not ``ok`` is the last."""

    phase: Phase
    at_ms: float
    ok: bool
    seen: str


@dataclass(slots=True)
class Trace:
    """Of one probe; ``doing`` is what it waits for at the moment."""

    phase: Phase = Phase.CONNECT
    doing: str = "connect"
    certificate: Certificate | None = None
    steps: list[Step] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def begin(self, phase: Phase, doing: str) -> None:
        self.phase, self.doing = phase, doing

    def saw(self, seen: str, *, ok: bool = True) -> None:
        """The phase has come to an end, or to one of its results."""
        self.steps.append(Step(self.phase, self.elapsed_ms(), ok, seen))

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000
