"""Which releases may be a pair: this one, the one before and the one after, so that boxes are updated in turn.  Pure.

Every message may say more than is known here, which is ignored, and less than is
hoped for, which is done without.  The number grows with each release that changes
what the boxes say to each other; a release without the number is the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lbfast import __version__

PROTOCOL: Final = 2  # 1: without history and candidate
_FIRST: Final = 1


class SkewError(Exception):
    """The peer's release is too far from ours."""


def protocol_of(facts: Mapping[str, Any]) -> int:
    """What the other box speaks, by what it says of itself."""
    return int(facts.get("protocol", _FIRST))


def why_not(facts: Mapping[str, Any]) -> str:
    """Why the two do not understand each other, and what to do; "" when they do."""
    theirs = protocol_of(facts)
    if abs(theirs - PROTOCOL) <= 1:
        return ""
    older, newer = (PROTOCOL, theirs) if theirs > PROTOCOL else (theirs, PROTOCOL)
    which = "this box" if theirs > PROTOCOL else "the peer"
    return (
        f"the peer has lbfast {str(facts.get('version', 'unknown'))[:40]} (protocol {theirs}), this box {__version__} "
        f"(protocol {PROTOCOL}): they may be one release apart, not {newer - older}; update {which} first, "
        "release by release"
    )
