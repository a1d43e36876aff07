"""What a TCP relay must do, in sixty lines of plain Python, and random scripts to compare a real one with it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

CLIENT, SERVER = "client", "server"
OTHER = {CLIENT: SERVER, SERVER: CLIENT}


@dataclass
class End:
    """What one end of the relayed connection has done."""

    sent: bytearray = field(default_factory=bytearray)
    has_half_closed: bool = False
    has_reset: bool = False


@dataclass(frozen=True)
class Seen:
    """What an end must have seen when all is over: bytes in order, the other's FIN, a reset."""

    received: bytes
    fin: bool
    reset: bool


class RelayModel:
    """Events of both ends in; what each end must see out."""

    def __init__(self) -> None:
        self.ends = {CLIENT: End(), SERVER: End()}

    def may(self, side: str, verb: str) -> bool:
        """Can this end still do that?  After both have said all the connection is over."""
        end = self.ends[side]
        if end.has_reset or self.is_over:
            return False
        return not (verb in ("send", "half_close") and end.has_half_closed)

    def send(self, side: str, data: bytes) -> None:
        self.ends[side].sent += data

    def half_close(self, side: str) -> None:
        self.ends[side].has_half_closed = True

    def reset(self, side: str) -> None:
        self.ends[side].has_reset = True

    @property
    def is_over(self) -> bool:
        return all(end.has_half_closed for end in self.ends.values())

    def seen_by(self, side: str) -> Seen | None:
        """None: this end has reset and looks no more."""
        end, other = self.ends[side], self.ends[OTHER[side]]
        if end.has_reset:
            return None
        return Seen(bytes(other.sent), other.has_half_closed and not other.has_reset, other.has_reset)


@dataclass(frozen=True)
class Step:
    """One event: ``amount`` bytes to send or to read; ``freeze`` and ``thaw`` concern the relay itself."""

    side: str
    verb: str
    amount: int = 0


def random_script(rng: random.Random) -> list[Step]:
    """Steps that are legal for the model, up to the end of both sides."""
    model, steps = RelayModel(), []
    largest = rng.choice([10, 3_000, 60_000, 400_000, 1_500_000])
    while not model.is_over and len(steps) < 14:
        side = rng.choice([CLIENT, SERVER])
        verb = rng.choices(["send", "read", "half_close", "reset", "freeze", "thaw"], [10, 5, 3, 1, 2, 2])[0]
        if not model.may(side, verb):
            continue
        steps.append(Step(side, verb, rng.randint(1, largest) if verb in ("send", "read") else 0))
        if verb == "half_close":
            model.half_close(side)
        elif verb == "reset":
            model.reset(side)
            break
    return steps
