"""Who may do what through the control socket: decided by the kernel's word on who has connected.

Root, the user that lbfast runs as and one group may use every verb; a second group those that change nothing.
"""

from __future__ import annotations

import grp
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from lbfast.control.engine import Caller
from lbfast.control.protocol import ControlError
from lbfast.model.appliance import ControlSettings

GROUP: Final = "lbfast"
REPORT_GROUP: Final = "lbfast-report"


class Right(IntEnum):
    """Ordered: who may change may also look."""

    NOTHING = 0
    LOOK = 1
    CHANGE = 2


@dataclass(frozen=True)
class Group:
    name: str
    gid: int


class GroupFault(Exception):
    """A configured group that this machine does not have; ``key`` is its key in ``[control]``."""

    def __init__(self, key: str, name: str) -> None:
        super().__init__(f"no group {name}")
        self.key = key
        self.found = f'"{name}"'
        self.expected = "a group that this machine has (groupadd --system makes one)"


@dataclass(frozen=True)
class Access:
    """``users`` may use every verb, and so may ``group``; ``report`` may look."""

    users: frozenset[int]
    group: Group | None = None
    report: Group | None = None
    owner: int = -1  # of the socket file: whom the web process runs as, who must be able to connect; -1: root

    @property
    def mode(self) -> int:
        """Of the socket file, which has one group: where there are two all may connect, and are judged then."""
        return 0o660 if self.report is None else 0o666

    def right_of(self, caller: Caller) -> Right:
        if caller.uid == 0 or caller.uid in self.users or (self.group and self.group.gid in caller.gids):
            return Right.CHANGE
        return Right.LOOK if self.report and self.report.gid in caller.gids else Right.NOTHING

    def for_whom(self, caller: Caller, by: str) -> Caller:
        """The person for whom a process of lbfast's own asks; nobody else may ask in another's name."""
        if not by:
            return caller
        if caller.uid != 0 and caller.uid not in self.users:
            raise ControlError("forbidden", f"{caller.user} may not ask in the name of {by!r}")
        return replace(caller, user=by)

    def check(self, caller: Caller, needed: Right, verb: str) -> None:
        """ControlError ``forbidden`` for a verb that the caller may not use."""
        if self.right_of(caller) < needed:
            text = f"{caller.user} may only look at lbfast here; {verb!r} is for {self._who_may_change()}"
            raise ControlError("forbidden", text)

    def refusal(self, caller: Caller) -> str:
        """What a stranger is told."""
        text = f"{caller.user} may not use lbfast here; {self._who_may_change()} may"
        return text + (f", and members of the group {self.report.name} may look" if self.report else "")

    def _who_may_change(self) -> str:
        return f"root and members of the group {self.group.name}" if self.group else "root and lbfast's own user"


def access_of(
    settings: ControlSettings,
    users: frozenset[int],
    find: Callable[[str], grp.struct_group] = grp.getgrnam,
    owner: int = -1,
) -> Access:
    """The groups as this machine knows them; GroupFault for one that was asked for and is not there."""
    group = _group("group", settings.group, GROUP, find)
    report = _group("report_group", settings.report_group, REPORT_GROUP, find)
    return Access(users, group, report, owner)


def _group(key: str, name: str | None, default: str, find: Callable[[str], grp.struct_group]) -> Group | None:
    try:
        found = find(name or default)
    except KeyError:
        if name is not None:
            raise GroupFault(key, name) from None
        return None
    return Group(found.gr_name, found.gr_gid)
