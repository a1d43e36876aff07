"""Heartbeats as bytes: fixed layout, HMAC-SHA256 with the pair's key, and the guard that lets nothing else in.

Pure.  What the guard holds against: forgery (the HMAC), replay and duplicates (the
sequence number), reordering (only what is newer counts), replay of an earlier run
of the peer (lives only grow, and the last one is kept on disk), and replay of this
very run to a box that has restarted (once a heartbeat has named our life, the
peer's others must do so too).
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, field
from enum import Enum

from lbfast.ha.election import Beat, Standing

MAGIC = b"LBHB"
VERSION = 1
KEY_BYTES = 32
_MAC_BYTES = 32
_MAX_BYTES = 512
_WINDOW = 64
# magic, version, flags, standing, level, life, the life of ours that was heard, sequence, claim, granted, late_ms
_BODY = struct.Struct("!4sBBBBQQQQQH")
_PRIMARY, _HEARS, _LEAVING, _ORDERED = 1, 2, 4, 8
MOST_LATE_MS = 0xFFFF


class Refusal(Enum):
    """Why a datagram is no heartbeat; also the names of the counters."""

    FORGED = "forged"  # not ours: length, magic or HMAC
    FOREIGN = "foreign"  # ours, of a version that we cannot read
    REPLAYED = "replayed"  # seen before, or of an earlier run, or said to an earlier run of ours
    DUPLICATE = "duplicate"  # the newest one again: it came over another path
    REORDERED = "reordered"  # older than one that was heard, and new to us


@dataclass(frozen=True)
class Heard:
    """A heartbeat that has passed."""

    beat: Beat
    sequence: int
    late_ms: int  # how late the sender was


def pack_beat(beat: Beat, heard_life: int, sequence: int, late_ms: int, key: bytes) -> bytes:
    """One datagram."""
    flags = _PRIMARY * beat.is_primary | _HEARS * beat.hears | _LEAVING * beat.is_leaving | _ORDERED * beat.is_ordered
    body = _BODY.pack(
        MAGIC,
        VERSION,
        flags,
        beat.standing,
        min(beat.level, 255),
        beat.life,
        heard_life,
        sequence,
        beat.claim,
        beat.granted,
        min(late_ms, MOST_LATE_MS),
    )
    return body + hmac.digest(key, body, "sha256")


@dataclass
class Guard:
    """What of the peer's may be believed.  ``known_life`` is the highest ever heard, from the disk."""

    key: bytes
    own_life: int
    known_life: int = 0
    newest: int = 0
    seen: int = 0  # bit n: newest - n was seen
    unread: str = ""  # why the peer's, which do come, are not read
    is_met: bool = False  # the peer's present life has named ours
    counts: dict[str, int] = field(default_factory=lambda: {"accepted": 0} | {it.value: 0 for it in Refusal})

    def check(self, datagram: bytes) -> Heard | Refusal:
        """Let one in, or say why not; counted either way."""
        found = self._check(datagram)
        self.counts["accepted" if isinstance(found, Heard) else found.value] += 1
        return found

    def _check(self, datagram: bytes) -> Heard | Refusal:
        # A later release may append to the body: the HMAC is the last 32 bytes and covers all before it.
        if not _BODY.size + _MAC_BYTES <= len(datagram) <= _MAX_BYTES or datagram[:4] != MAGIC:
            return Refusal.FORGED
        body, mac = datagram[:-_MAC_BYTES], datagram[-_MAC_BYTES:]
        if not hmac.compare_digest(hmac.digest(self.key, body, "sha256"), mac):
            return Refusal.FORGED
        _, version, flags, standing, level, life, heard_life, sequence, claim, granted, late_ms = _BODY.unpack_from(
            body
        )
        # One release may differ from the next: its heartbeats begin the same way.
        if not VERSION - 1 <= version <= VERSION + 1:
            self.unread = f"its heartbeats are of version {version}, this box reads {VERSION - 1} to {VERSION + 1}"
            return Refusal.FOREIGN
        if standing > Standing.ACTIVE or life == self.own_life:
            return Refusal.FOREIGN
        self.unread = ""
        refusal = self._place(life, heard_life, sequence)
        if refusal is not None:
            return refusal
        beat = Beat(
            life=life,
            standing=Standing(standing),
            level=level,
            is_primary=bool(flags & _PRIMARY),
            hears=bool(flags & _HEARS),
            is_leaving=bool(flags & _LEAVING),
            is_ordered=bool(flags & _ORDERED),
            claim=claim,
            granted=granted,
        )
        return Heard(beat, sequence, late_ms)

    def _place(self, life: int, heard_life: int, sequence: int) -> Refusal | None:
        """Where it stands among those that came: None when it is the newest of the newest life."""
        names_us = heard_life == self.own_life
        if life < self.known_life:
            return Refusal.REPLAYED
        if life > self.known_life:
            self.known_life, self.newest, self.seen, self.is_met = life, sequence, 1, names_us
            return None
        if self.is_met and not names_us:
            return Refusal.REPLAYED
        if sequence <= self.newest:
            return self._place_older(self.newest - sequence)
        self.seen = (self.seen << min(_WINDOW, sequence - self.newest) | 1) & ((1 << _WINDOW) - 1)
        self.newest = sequence
        self.is_met = names_us
        return None

    def _place_older(self, age: int) -> Refusal:
        if age >= _WINDOW or self.seen >> age & 1:
            return Refusal.DUPLICATE if age == 0 else Refusal.REPLAYED
        self.seen |= 1 << age
        return Refusal.REORDERED
