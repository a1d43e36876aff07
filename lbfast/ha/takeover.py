"""Takes the addresses and lets them go: raise, announce again and again, renew; and asks the LAN before.

The calls that change the host are the supervisor's (``supervisor/ha_addresses.py``,
passed in); what is done when is decided here, by times that are passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lbfast.ha.conflicts import Conflicts
from lbfast.ha.election import Probe

ANNOUNCE_MS = (0, 20, 100, 500, 2000, 5000)
"""An announcement can be lost, or come while a switch is still learning: the first ones come close together."""

RENEW_MS = 1000
VALID_S = 4  # what is not renewed for so long, the kernel takes off
PROBE_EVERY_MS = 40
PROBE_ROUNDS = 3  # questions that must have stayed without an answer
PROBE_WAIT_MS = 30  # for the answer to the last of them
_FORGET_MS = 500  # an answer counts for so long


class Addresses(Protocol):
    """What changes the host (``supervisor.ha_addresses.HeldAddresses``)."""

    def set_wanted(self, wanted: Sequence[tuple[str, str | None]]) -> list[str]: ...
    def is_held(self) -> bool: ...
    def interfaces(self) -> list[str]: ...
    def moving(self) -> set[str]: ...
    def hold(self, valid_s: int) -> list[str]: ...
    def drop_all(self) -> list[str]: ...
    def announce(self) -> list[str]: ...
    def send_probe(self) -> None: ...
    def read_probe(self) -> tuple[dict[str, str], bool]: ...
    def close_probe(self) -> None: ...


@dataclass
class Prober:
    """Asks the LAN for the addresses while there is reason to, and says what it has learned."""

    addresses: Addresses
    yields: bool  # the secondary makes way for another machine that asks at the same time
    first_at: int | None = None
    sent_at: int = 0
    rounds: int = 0
    taken_at: int | None = None
    trouble: str = ""

    def stop(self) -> None:
        """There is no reason any more."""
        if self.first_at is not None:
            self.addresses.close_probe()
        self.first_at, self.rounds, self.taken_at = None, 0, None

    def turn(self, now_ms: int) -> Probe:
        """Ask when it is time; what the answers, or their absence, mean now."""
        try:
            taken, asked = self.addresses.read_probe()
            if self.first_at is None or now_ms - self.sent_at >= PROBE_EVERY_MS:
                self.addresses.send_probe()
                self.first_at = now_ms if self.first_at is None else self.first_at
                self.sent_at = now_ms
                self.rounds += 1
            self.trouble = ""
        except OSError as error:
            self.trouble = f"cannot ask the network for the addresses: {error.strerror}"
            self.stop()
            return Probe.NONE
        if taken or (asked and self.yields):
            self.taken_at = now_ms
        if self.taken_at is not None and now_ms - self.taken_at < _FORGET_MS:
            return Probe.TAKEN
        # After a conflict that has ended, the questions count anew.
        if self.taken_at is not None:
            self.taken_at, self.rounds = None, 0
            return Probe.NONE
        enough = self.rounds > PROBE_ROUNDS or (self.rounds == PROBE_ROUNDS and now_ms - self.sent_at >= PROBE_WAIT_MS)
        return Probe.FREE if enough else Probe.NONE


@dataclass
class Holder:
    """Holds the addresses, from ``take`` to ``let_go``."""

    addresses: Addresses
    announce_interval_ms: int
    conflicts: Conflicts = field(init=False)
    since: int | None = None
    renewed_at: int = 0
    announcing_since: int = 0
    announced: int = 0  # of ANNOUNCE_MS
    announced_at: int = 0
    failures: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        self.conflicts = Conflicts(self.addresses)

    @property
    def is_holding(self) -> bool:
        return self.since is not None

    def take(self, now_ms: int) -> tuple[str, ...]:
        """Raise them; what failed, in words, and then none is left up."""
        failures = self.addresses.hold(VALID_S)
        if failures:
            failures += self.addresses.drop_all()
            self.failures = tuple(failures)
            return self.failures
        self.since = self.renewed_at = now_ms
        self.announce_again(now_ms)
        self.turn(now_ms)
        return ()

    def announce_again(self, now_ms: int) -> None:
        """Somebody else may have announced them meanwhile: the neighbours must hear who has them."""
        self.announcing_since, self.announced = now_ms, 0

    def let_go(self) -> tuple[str, ...]:
        """Drop them; what failed, in words.  The lifetime ends what could not be dropped."""
        self.since = None
        self.conflicts.stop()
        return tuple(self.addresses.drop_all())

    def turn(self, now_ms: int) -> None:
        """Renew and announce when it is time; a question for another holder goes with each announcement."""
        if self.since is None:
            return
        if now_ms - self.renewed_at >= RENEW_MS:
            self.renewed_at = now_ms
            self.failures = tuple(self.addresses.hold(VALID_S))
        due = self.announced < len(ANNOUNCE_MS) and now_ms - self.announcing_since >= ANNOUNCE_MS[self.announced]
        if due or now_ms - self.announced_at >= self.announce_interval_ms:
            self.announced += due
            self.announced_at = now_ms
            self.addresses.announce()
            self.conflicts.ask(now_ms)

    def listen(self, now_ms: int) -> tuple[str, ...]:
        """For another holder's answers; what people should know."""
        news = self.conflicts.turn(now_ms)
        if self.conflicts.must_defend(now_ms):
            self.announce_again(now_ms)
        return news
