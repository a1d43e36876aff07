"""Whether another machine has an address that this box holds (RFC 5227, 2.4): asked for as long as it is held.

A box that is granted the addresses takes them at once: to ask the LAN first would cost clients a tenth of a second at
each takeover, for a fault that is rare.  So it asks afterwards, and says what it finds.  It never lets go because
of it: the machine that has no right to the address would be the one that keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

LISTEN_MS = 600  # from a question on; the first announcements, at 0 to 500 ms, share this time
ASK_AGAIN_MS = 1000  # while there is a conflict, so that its end is seen
MOST_TOLD = 5  # of what begins or ends in one moment
DEFEND_MS = 10_000  # RFC 5227's DEFEND_INTERVAL: two that defend an address more often would flood the LAN


class Questions(Protocol):
    """The part of ``takeover.Addresses`` that is needed here."""

    def send_probe(self) -> None: ...
    def read_probe(self) -> tuple[dict[str, str], bool]: ...
    def close_probe(self) -> None: ...


@dataclass
class Conflicts:
    """``found``: each held address that another machine has as well, with that machine's MAC."""

    addresses: Questions
    found: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    _heard: dict[str, str] = field(default_factory=dict)  # since the question
    _asked_at: int | None = None
    _defended_at: int | None = None

    def ask(self, now_ms: int) -> None:
        """A question to the LAN; its answers are listened for."""
        try:
            self.addresses.send_probe()
        except OSError as error:
            self.trouble = f"cannot ask the network for the addresses: {error.strerror}"
            self.addresses.close_probe()
            return
        self.trouble = ""
        if self._asked_at is None:
            self._heard, self._asked_at = {}, now_ms

    def turn(self, now_ms: int) -> tuple[str, ...]:
        """Listen; what has begun or ended, in words."""
        if self._asked_at is None:
            return ()
        try:
            self._heard |= self.addresses.read_probe()[0]
        except OSError as error:
            self.trouble = f"cannot hear the network's answers: {error.strerror}"
        is_over = now_ms - self._asked_at >= LISTEN_MS
        # Who could not be asked or heard may still be there.
        is_known = is_over and not self.trouble
        news = self._learn(self._heard if is_known else {**self.found, **self._heard})
        if is_over and not self.found:
            self.addresses.close_probe()
            self._asked_at = None
        elif now_ms - self._asked_at >= ASK_AGAIN_MS:
            self._asked_at = None
            self.ask(now_ms)
        return news

    def must_defend(self, now_ms: int) -> bool:
        """Whether the neighbours should be told again who has the address, because of what was found."""
        if not self.found or (self._defended_at is not None and now_ms - self._defended_at < DEFEND_MS):
            return False
        self._defended_at = now_ms
        return True

    def stop(self) -> None:
        """The addresses are not held any more."""
        if self._asked_at is not None:
            self.addresses.close_probe()
        self._asked_at, self._heard, self.found = None, {}, {}

    def words(self) -> tuple[str, ...]:
        """What stands against these addresses."""
        return _first_of([_words(address, mac) for address, mac in self.found.items()])

    def _learn(self, found: Mapping[str, str]) -> tuple[str, ...]:
        before, self.found = self.found, dict(found)
        begun = [_words(address, mac) for address, mac in found.items() if address not in before]
        ended = [f"{address} is this box's alone again" for address in before if address not in found]
        return _first_of(begun) + _first_of(ended)


def _first_of(news: Sequence[str]) -> tuple[str, ...]:
    """A machine that is a copy has all addresses: one event, not hundreds."""
    if len(news) <= MOST_TOLD:
        return tuple(news)
    return (*news[:MOST_TOLD], f"... and {len(news) - MOST_TOLD} more of the same")


def _words(address: str, mac: str) -> str:
    return f"another machine{f' ({mac})' if mac else ''} has {address}, too: it takes clients away from this pair"
