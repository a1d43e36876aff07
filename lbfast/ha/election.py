"""Who holds the addresses: one table, walked with time and messages as arguments.

Two rules about this file.  Everything about who is active is decided here.  Nothing
here knows a clock, a socket or an address: all arrives in ``Facts``, and the answer
says what to be next.

How two actives are kept apart.  A box never goes from passive to active in one step.
It *claims* first, and says so in every heartbeat.  A peer that hears the claim either
grants it, which it does only while it holds no address, or answers that it is active.
The claim becomes a takeover when the peer has granted this very claim, or when nothing
has been heard of the peer for ``dead_ms``, nobody on the network answers for the
addresses, and the claim has been announced for ``claim_ms``: time enough for an active
box that we cannot hear, but that hears us, to let go.

The rank of a box is its level (how well it can serve), then its role, then the number
of its life.  A healed split ends by rank: the lower one releases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from types import MappingProxyType

from lbfast.ha.timing import Timing

USEFUL = 2
"""The least level that is of use to a client: below, a box cannot serve, or nobody can reach it (``fitness.py``)."""


class Standing(IntEnum):
    """What a box is, as heartbeats say it."""

    PASSIVE = 0
    CLAIMING = 1
    ACTIVE = 2


class Peer(Enum):
    """What is known of the other box."""

    SILENT = "silent"
    LEAVING = "leaving"
    PASSIVE = "passive"
    CLAIMING = "claiming"
    ACTIVE = "active"


class Probe(Enum):
    """What the network said when it was asked for the addresses."""

    NONE = "none"  # not asked, or no answer that is fresh enough
    FREE = "free"
    TAKEN = "taken"


@dataclass(frozen=True)
class Beat:
    """What one box tells the other."""

    life: int  # a random number, new at each start of the process
    standing: Standing
    level: int  # 0 = cannot serve
    is_primary: bool
    hears: bool  # it has heard us within its dead time
    is_leaving: bool = False  # it has let go and ends
    is_ordered: bool = False  # its claim is an operator's order
    claim: int = 0  # the number of its claim, when claiming
    granted: int = 0  # the claim of ours that it yields to


@dataclass(frozen=True)
class Memory:
    """What a box remembers from step to step."""

    life: int
    is_primary: bool
    started_at: int
    standing: Standing = Standing.PASSIVE
    since: int = 0
    heard_at: int | None = None
    beat: Beat | None = None  # the last of the peer
    claim: int = 0
    ordered_at: int | None = None
    moved_at: int | None = None  # the addresses were last seen to change hands


@dataclass(frozen=True)
class Surroundings:
    """What a box sees of itself and of the network at this moment."""

    level: int
    is_cut_off: bool = False  # no carrier, or nobody that should answer a ping does
    is_stopping: bool = False
    probe: Probe = Probe.NONE


@dataclass(frozen=True)
class Facts:
    """Everything a row may ask for."""

    now: int
    memory: Memory
    around: Surroundings
    timing: Timing

    @property
    def peer(self) -> Peer:
        beat, heard_at = self.memory.beat, self.memory.heard_at
        if beat is None or heard_at is None or self.now - heard_at >= self.timing.dead_ms:
            return Peer.SILENT
        if beat.is_leaving:
            return Peer.LEAVING
        return Peer[beat.standing.name]

    @property
    def peer_level(self) -> int:
        beat = self.memory.beat
        return 0 if beat is None else beat.level

    @property
    def is_fit(self) -> bool:
        return self.around.level > 0 and not self.around.is_stopping

    @property
    def is_unfit(self) -> bool:
        return not self.is_fit

    @property
    def is_stopping(self) -> bool:
        return self.around.is_stopping

    @property
    def is_cut_off(self) -> bool:
        return self.around.is_cut_off

    @property
    def is_reachable(self) -> bool:
        return not self.around.is_cut_off

    @property
    def is_free(self) -> bool:
        return self.around.probe is Probe.FREE

    @property
    def is_taken(self) -> bool:
        return self.around.probe is Probe.TAKEN

    @property
    def has_listened(self) -> bool:
        return self.now - self.memory.started_at >= self.timing.listen_ms

    @property
    def has_announced(self) -> bool:
        return self.now - self.memory.since >= self.timing.claim_ms

    @property
    def is_claim_old(self) -> bool:
        return self.now - self.memory.since >= self.timing.dead_ms

    @property
    def is_granted(self) -> bool:
        beat = self.memory.beat
        return beat is not None and beat.granted == self.memory.claim

    @property
    def is_ordered(self) -> bool:
        ordered_at = self.memory.ordered_at
        return ordered_at is not None and self.now - ordered_at < self.timing.order_ms

    @property
    def is_settled(self) -> bool:
        moved_at = self.memory.moved_at
        return moved_at is None or self.now - moved_at >= self.timing.settle_ms

    @property
    def outranks(self) -> bool:
        return _rank(self) > _rank_of_peer(self)

    @property
    def is_outranked(self) -> bool:
        return _rank(self) < _rank_of_peer(self)

    @property
    def is_fitter(self) -> bool:
        return self.around.level > self.peer_level

    @property
    def peer_is_unfit(self) -> bool:
        return self.peer_level < USEFUL <= self.around.level

    @property
    def peer_is_useful(self) -> bool:
        """And this box is not."""
        return self.around.level < USEFUL <= self.peer_level

    @property
    def is_unheard(self) -> bool:
        beat = self.memory.beat
        return beat is not None and not beat.hears

    @property
    def has_no_cause(self) -> bool:
        """To claim from an active peer."""
        return not (self.is_ordered or self.is_fitter)

    @property
    def peer_has_cause(self) -> bool:
        """To claim what we hold."""
        beat = self.memory.beat
        return beat is not None and (beat.is_ordered or not beat.hears or beat.level > self.around.level)


def _rank(facts: Facts) -> tuple[int, bool, int]:
    level = 0 if facts.around.is_stopping else facts.around.level
    return (level, facts.memory.is_primary, facts.memory.life)


def _rank_of_peer(facts: Facts) -> tuple[int, bool, int]:
    beat = facts.memory.beat
    return (-1, False, 0) if beat is None else (beat.level, beat.is_primary, beat.life)


@dataclass(frozen=True)
class Row:
    """When standing so, and the peer so, and all conditions hold: become ``then``, because."""

    peers: tuple[Peer, ...]
    when: tuple[str, ...]
    then: Standing
    because: str


ANY = tuple(Peer)
P, C, A = Standing.PASSIVE, Standing.CLAIMING, Standing.ACTIVE

TABLE: Mapping[Standing, tuple[Row, ...]] = MappingProxyType(
    {
        P: (
            Row(
                (Peer.SILENT,),
                ("is_fit", "is_reachable", "has_listened", "is_free"),
                C,
                "the peer is silent and nobody has the addresses",
            ),
            Row((Peer.LEAVING,), ("is_fit",), C, "the peer has handed over"),
            Row((Peer.PASSIVE,), ("is_fit", "is_ordered"), C, "takeover was ordered"),
            Row((Peer.PASSIVE,), ("is_fit", "outranks"), C, "neither box is active and this one ranks higher"),
            Row((Peer.ACTIVE,), ("is_fit", "is_ordered"), C, "takeover was ordered"),
            Row((Peer.ACTIVE,), ("is_fit", "peer_is_unfit"), C, "the active peer cannot serve"),
            Row((Peer.ACTIVE,), ("is_fit", "is_fitter", "is_settled"), C, "the active peer serves less well"),
        ),
        C: (
            Row(ANY, ("is_unfit",), P, "this box cannot serve"),
            Row((Peer.SILENT,), ("is_cut_off",), P, "this box is cut off"),
            Row((Peer.SILENT,), ("is_taken",), P, "another machine answers for the addresses"),
            Row((Peer.SILENT,), ("is_free", "has_announced"), A, "the peer is silent and nobody has the addresses"),
            Row((Peer.LEAVING,), (), A, "the peer has handed over"),
            Row((Peer.PASSIVE,), ("is_granted",), A, "the peer has let go"),
            Row(
                (Peer.PASSIVE,),
                ("is_unheard", "is_free", "has_announced"),
                A,
                "the peer does not hear this box, and nobody has the addresses",
            ),
            Row((Peer.PASSIVE,), ("is_claim_old",), P, "the peer did not answer the claim"),
            Row((Peer.CLAIMING,), ("is_outranked",), P, "the peer claims too and ranks higher"),
            Row((Peer.ACTIVE,), ("has_no_cause",), P, "the peer is active"),
            Row((Peer.ACTIVE,), ("is_claim_old",), P, "the active peer did not let go"),
        ),
        A: (
            Row(ANY, ("is_stopping",), P, "this box stops"),
            Row((Peer.SILENT,), ("is_cut_off",), P, "this box is cut off from the network and from its peer"),
            Row((Peer.SILENT,), ("is_unfit",), P, "this box cannot serve, and would not hear the peer's claim"),
            Row((Peer.PASSIVE,), ("peer_is_useful",), P, "this box cannot serve, and the peer can"),
            Row((Peer.CLAIMING,), ("peer_has_cause",), P, "the peer takes over"),
            Row((Peer.ACTIVE,), ("is_outranked",), P, "both boxes were active and the peer ranks higher"),
            Row((Peer.ACTIVE,), ("is_unheard",), P, "both boxes were active and the peer does not hear this one"),
        ),
    }
)


@dataclass(frozen=True)
class Move:
    """One change of standing, and why."""

    before: Standing
    after: Standing
    because: str


def hear(memory: Memory, beat: Beat, now: int) -> Memory:
    """A heartbeat of the peer that has passed all checks."""
    before = memory.beat
    changed = beat.standing is A and (before is None or before.standing is not A)
    moved_at = now if changed else memory.moved_at
    return replace(memory, beat=beat, heard_at=now, moved_at=moved_at)


def order_takeover(memory: Memory, now: int) -> Memory:
    """An operator wants this box to become active; forgotten after ``order_ms``."""
    return replace(memory, ordered_at=now)


def decide(memory: Memory, around: Surroundings, now: int, timing: Timing) -> tuple[Memory, tuple[Move, ...]]:
    """Walk the table until nothing changes; what is remembered then, and the moves in order.

    A box that goes through claiming to active in one call has been granted it (or
    the peer has left): the caller carries out the last standing only.
    """
    moves: list[Move] = []
    for _ in range(len(Standing)):
        facts = Facts(now, memory, around, timing)
        row = find_row(facts)
        if row is None:
            break
        moves.append(Move(memory.standing, row.then, row.because))
        memory = _move(memory, row.then, now)
    return memory, tuple(moves)


def find_row(facts: Facts) -> Row | None:
    """The first row that applies; None to stay."""
    peer = facts.peer
    for row in TABLE[facts.memory.standing]:
        if peer in row.peers and all(getattr(facts, condition) for condition in row.when):
            return row
    return None


def _move(memory: Memory, then: Standing, now: int) -> Memory:
    claim = memory.claim + 1 if then is C else memory.claim
    moved = then is A or memory.standing is A
    return replace(
        memory,
        standing=then,
        since=now,
        claim=claim,
        ordered_at=memory.ordered_at if then is C else None,
        moved_at=now if moved else memory.moved_at,
    )


def make_beat(memory: Memory, around: Surroundings, now: int, timing: Timing) -> Beat:
    """What to tell the peer now.

    A claim is granted by saying its number while passive; nothing else is promised.
    """
    facts = Facts(now, memory, around, timing)
    heard = facts.peer is not Peer.SILENT
    theirs = memory.beat
    is_claimed = heard and theirs is not None and theirs.standing is C
    return Beat(
        life=memory.life,
        standing=memory.standing,
        level=0 if around.is_stopping else around.level,
        is_primary=memory.is_primary,
        hears=heard,
        is_leaving=around.is_stopping and memory.standing is P,
        is_ordered=facts.is_ordered and memory.standing is C,
        claim=memory.claim if memory.standing is C else 0,
        granted=theirs.claim if is_claimed and theirs is not None and memory.standing is P else 0,
    )


def needs_probe(memory: Memory, around: Surroundings, now: int, timing: Timing) -> bool:
    """Whether to ask the network for the addresses: from the first suspicion until the peer is heard again.

    Also while this box claims and the peer says that it does not hear it: it cannot grant the claim then.
    Not by a box that could not take them: a question of the primary makes the secondary wait.
    """
    if memory.standing is A or around.level == 0 or around.is_cut_off or around.is_stopping:
        return False
    if memory.standing is C and memory.beat is not None and not memory.beat.hears:
        return True
    heard_at = memory.started_at if memory.heard_at is None else memory.heard_at
    return now - heard_at >= timing.suspect_ms


class HaState(Enum):
    """What people are told: one of four words."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ALONE = "alone"  # active, and the peer is silent
    UNKNOWN = "unknown"  # not active, and not known whether the peer is


def ha_state(memory: Memory, now: int, timing: Timing) -> HaState:
    """The word for a box."""
    peer = Facts(now, memory, Surroundings(1), timing).peer
    if memory.standing is A:
        return HaState.ALONE if peer in (Peer.SILENT, Peer.LEAVING) else HaState.ACTIVE
    return HaState.PASSIVE if peer is Peer.ACTIVE else HaState.UNKNOWN


CONDITIONS: Mapping[str, Callable[[Facts], bool]] = MappingProxyType(
    {
        name: value.fget
        for name, value in vars(Facts).items()
        if isinstance(value, property) and value.fget is not None and name not in ("peer", "peer_level")
    }
)
