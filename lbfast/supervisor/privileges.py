"""Whom the children become, what each of them keeps, and the moment when they give up the rest.

Decided once at the start, by the supervisor.  A child gives up its rights in this order: bounds, user, capabilities,
new privileges; a step that fails ends the child, which never goes on with more than it should have.
"""

from __future__ import annotations

import os
import pwd
import resource
import stat
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lbfast.supervisor import capabilities
from lbfast.supervisor.capabilities import Capability

DEFAULT_USER: Final = "lbfast"
NOBODY: Final = "nobody"
WORKER_KEEPS: Final = frozenset({Capability.SYS_RESOURCE})
"""Pipes of full size beyond fs.pipe-user-pages-soft; its other powers are calls that a worker's filter refuses."""
HA_KEEPS: Final = frozenset(
    {
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.NET_ADMIN,
        Capability.NET_BIND_SERVICE,  # a connection to port 443 that moves here
        Capability.NET_RAW,
        Capability.SYS_NICE,
    }
)
HA_SETTLED: Final = HA_KEEPS - {Capability.CHOWN, Capability.SYS_NICE}
"""Once it runs ahead of the others, and its socket is control's user's."""
NOTHING: Final[frozenset[int]] = frozenset()
_TO_BECOME: Final = frozenset({Capability.SETUID, Capability.SETGID})


@dataclass(frozen=True)
class User:
    """A user and its primary group."""

    name: str
    uid: int
    gid: int


class UserFault(Exception):
    """The configured user cannot be had."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.found = found
        self.expected = expected


@dataclass(frozen=True)
class Privileges:
    """``user``: whom children become, None = they stay who the supervisor is."""

    user: User | None
    is_privileged: bool = False  # the supervisor has capabilities, so there is something to lose
    keeps_control: bool = False  # control stays root: the user cannot reach its files
    notes: tuple[str, ...] = ()  # for the events

    def drop_worker(self) -> None:
        """No process of its own, no core with clients' bytes, one capability."""
        self._drop(self.user, WORKER_KEEPS)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

    def drop_health(self) -> None:
        """Nothing is kept: it opens connections, and starts check scripts as this user."""
        self._drop(self.user, NOTHING)

    def drop_control(self) -> None:
        """Its files are its user's (``ownership.py``); as root it needs no more than to reach them."""
        if self.keeps_control:
            self._drop(None, {Capability.DAC_OVERRIDE})
        else:
            self._drop(self.user, NOTHING)

    def drop_ha(self) -> None:
        """It changes addresses, asks the LAN, hurries, and keeps files beside those of control's user."""
        self._drop(None, HA_KEEPS)

    def _drop(self, user: User | None, keep: Collection[int]) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if not self.is_privileged:
            return
        capabilities.shrink_bounds(keep)
        if user is not None:
            capabilities.become_user(user.uid, user.gid)
        capabilities.keep_only(keep)
        capabilities.forbid_new_privileges()
        # Whoever has the same user must not look into this memory: it holds clients' bytes.
        capabilities.forbid_core()


def decide(
    configured: str | None,
    places: Sequence[Path],
    held: Set[int],
    find: Callable[[str], pwd.struct_passwd] = pwd.getpwnam,
) -> Privileges:
    """``places``: directories that control has to reach; UserFault when a user was asked for that cannot be had."""
    own = os.geteuid()
    is_privileged = bool(held) or own == 0
    if not _TO_BECOME.issubset(held):
        return Privileges(None, is_privileged, notes=_stay(configured, own, find))
    name = configured or (DEFAULT_USER if _exists(DEFAULT_USER, find) else NOBODY)
    try:
        found = find(name)
    except KeyError:
        raise UserFault(f'"{name}"', "a user that this machine has (useradd --system makes one)") from None
    if found.pw_uid == own:
        return Privileges(None, is_privileged, notes=(f"all processes run as {name}: the configuration says so",))
    user = User(found.pw_name, found.pw_uid, found.pw_gid)
    notes = [] if configured or name == DEFAULT_USER else [_SHARED]
    closed = [text for place in places if (text := closed_to(place, user))]
    if closed and configured:
        raise UserFault(f'"{name}", who cannot reach {closed[0]}', "a user that can, or other directories")
    if closed:
        notes.append(f"control runs as root, because {name} cannot reach {closed[0]}")
    return Privileges(user, is_privileged, bool(closed), tuple(notes))


_SHARED: Final = (
    f"there is no user {DEFAULT_USER} on this machine: workers, health and control run as {NOBODY}, as other programs "
    f"may do; make one (useradd --system {DEFAULT_USER}), or name one in the configuration (user)"
)


def _stay(configured: str | None, own: int, find: Callable[[str], pwd.struct_passwd]) -> tuple[str, ...]:
    """Nobody else can be become."""
    who = _name(own)
    if configured and (not _exists(configured, find) or find(configured).pw_uid != own):
        right = f'no user, or "{who}": lbfast was started as {who} without CAP_SETUID and CAP_SETGID'
        raise UserFault(f'"{configured}"', f"{right}, and stays that")
    return ("all processes run as root: CAP_SETUID and CAP_SETGID are missing",) if own == 0 else ()


def closed_to(place: Path, user: User) -> str | None:
    """The first directory on the way that the user may not go through, in words."""
    for directory in reversed(place.parents):
        try:
            status = directory.stat()
        except OSError:
            return None  # whoever needs it says why
        if not _may_execute(status, user):
            return f"{place}: {directory} is closed to it ({stat.filemode(status.st_mode)})"
    return None


def why_not_executable(program: Path, user: User) -> str | None:
    """What keeps a check script from being run by the user, in words."""
    try:
        status = program.stat()
    except OSError:
        return None  # the check of the configuration has said so already
    if not _may_execute(status, user):
        return f"{program}, which {user.name} may not execute ({stat.filemode(status.st_mode)})"
    closed = closed_to(program, user)
    return f"{closed}; health runs it as {user.name}" if closed else None


def _may_execute(status: os.stat_result, user: User) -> bool:
    bit = 0o100 if status.st_uid == user.uid else 0o010 if status.st_gid == user.gid else 0o001
    return bool(status.st_mode & bit)


def _exists(name: str, find: Callable[[str], pwd.struct_passwd]) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
