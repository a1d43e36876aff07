"""How well this box can serve: what it sees of itself becomes a level, with the reasons.  Pure.

The levels are compared between the boxes, so each is worth moving the addresses for:

    0  it cannot serve: a worker's loop stands still, its own address does not answer, maintenance
    1  nobody can reach it: no carrier, or no ping address answers
    2  it reaches no real server of some virtual service
    3  some ping addresses answer, some do not
    4  nothing is amiss

What may be over in a moment (pings, real servers) must last before it counts, and
what has got better must stay so before it counts again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CANNOT_SERVE, CUT_OFF, NO_SERVERS, SOME_PINGS, WELL = range(5)
WORSE_AFTER_MS = 1500
BETTER_AFTER_MS = 2000


@dataclass(frozen=True)
class Sight:
    """What a box sees at one moment."""

    hung: tuple[int, ...] = ()  # workers whose loop stands still
    dead: tuple[str, ...] = ()  # service addresses that do not answer although they are held
    unraised: tuple[str, ...] = ()  # addresses that could not be raised a moment ago
    without_carrier: tuple[str, ...] = ()  # interfaces that carry service addresses
    pings: int = 0  # addresses that answer
    pings_known: int = 0  # addresses that have ever answered
    unserved: tuple[str, ...] = ()  # virtual services without a real server that is up
    is_in_maintenance: bool = False


@dataclass(frozen=True)
class Judgement:
    """A level and why it is not higher."""

    level: int
    is_cut_off: bool
    reasons: tuple[str, ...]


def judge(sight: Sight) -> Judgement:
    """The level at this moment, without memory."""
    reasons: list[str] = []
    level = WELL

    def lower(to: int, reason: str) -> None:
        nonlocal level
        level = min(level, to)
        reasons.append(reason)

    if sight.is_in_maintenance:
        lower(CANNOT_SERVE, "it is in maintenance")
    if sight.hung:
        lower(CANNOT_SERVE, f"worker {', '.join(map(str, sight.hung))} does not move on")
    for failure in sight.unraised:
        lower(CANNOT_SERVE, failure)
    if sight.dead:
        lower(CANNOT_SERVE, f"{', '.join(sight.dead)} does not answer although it is held here")
    is_cut_off = bool(sight.without_carrier)
    if sight.without_carrier:
        lower(CUT_OFF, f"no carrier on {', '.join(sight.without_carrier)}")
    if sight.pings_known and not sight.pings:
        is_cut_off = True
        lower(CUT_OFF, "no ping address answers")
    elif sight.pings < sight.pings_known:
        lower(SOME_PINGS, f"{sight.pings_known - sight.pings} of {sight.pings_known} ping addresses do not answer")
    if sight.unserved:
        lower(NO_SERVERS, f"no real server is up for {', '.join(sight.unserved)}")
    return Judgement(level, is_cut_off, tuple(reasons))


@dataclass
class Steady:
    """The level that the peer is told: a lasting change counts, a passing one does not.

    At once count: not being able to serve, and a lost carrier.
    """

    level: int = CANNOT_SERVE
    is_cut_off: bool = False
    _is_new: bool = True  # nothing has been better before: the first level counts at once
    _seen: int = WELL
    _since: int | None = field(default=None)

    def update(self, judged: Judgement, now_ms: int, *, is_certain: bool) -> None:
        """``is_certain``: what made the level worse needs no confirmation."""
        if judged.level == self.level:
            self._since = None
            self.is_cut_off = judged.is_cut_off and (self.is_cut_off or is_certain)
        elif self._is_new or judged.level == CANNOT_SERVE or (is_certain and judged.level < self.level):
            self._take(judged)
        else:
            if self._since is None or (judged.level < self.level) != (self._seen < self.level):
                self._since = now_ms
            self._seen = judged.level
            wait = WORSE_AFTER_MS if judged.level < self.level else BETTER_AFTER_MS
            if now_ms - self._since >= wait:
                self._take(judged)

    def _take(self, judged: Judgement) -> None:
        self.level, self.is_cut_off, self._since = judged.level, judged.is_cut_off, None
        self._is_new = False
