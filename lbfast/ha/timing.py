"""The times of the pair, from the two settings that people make: interval and missed.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Milliseconds."""

    interval_ms: int = 100  # between heartbeats
    dead_ms: int = 300  # silence that means death
    suspect_ms: int = 150  # silence from which the network is asked for the addresses
    claim_ms: int = 50  # a claim that nobody can grant is announced for so long
    listen_ms: int = 1000  # after a start, before an address is taken from a silent peer
    order_ms: int = 5000  # an order to take over that could not be carried out is forgotten
    settle_ms: int = 10_000  # after a move, before a box that is only fitter moves the addresses again

    @property
    def takeover_ms(self) -> tuple[int, int]:
        """From the death of the active box to the takeover, at best and at worst, without the time to raise."""
        return self.dead_ms - self.interval_ms + self.claim_ms, self.dead_ms + self.claim_ms


def make_timing(interval_ms: int, missed: int) -> Timing:
    """From what the configuration says; the rest follows."""
    dead = interval_ms * missed
    return Timing(
        interval_ms=interval_ms,
        dead_ms=dead,
        suspect_ms=max(interval_ms + interval_ms // 2, dead // 2),
        claim_ms=max(20, interval_ms // 2),
        listen_ms=max(1000, 2 * dead),
        order_ms=max(5000, 4 * dead),
        settle_ms=max(10_000, 10 * dead),
    )
