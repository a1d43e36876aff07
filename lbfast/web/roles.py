"""What a user or key may do: three roles, each of which may do all that the next one may."""

from __future__ import annotations

from typing import Final

from lbfast.web.said import said

REPORT: Final = "report"
OPERATE: Final = "operate"
CONFIGURE: Final = "configure"
ROLES: Final = (CONFIGURE, OPERATE, REPORT)
_RANK: Final = {REPORT: 1, OPERATE: 2, CONFIGURE: 3}

MEANING: Final = {
    REPORT: "sees everything, changes nothing",
    OPERATE: "also drains, halts and brings online, and clears persistence",
    CONFIGURE: "also changes the configuration, users and the appliance",
}


def may(role: str, wanted: str) -> bool:
    """Whether a role is enough for what a page wants."""
    return _RANK.get(role, 0) >= _RANK[wanted]


def check_role(role: str) -> str:
    """The role; ValueError with the words there are."""
    if role not in _RANK:
        raise ValueError(
            said(
                "a role is %(roles)s or %(last)s, found %(role)s",
                roles=", ".join(ROLES[:-1]),
                last=ROLES[-1],
                role=repr(role[:40]),
            )
        )
    return role
