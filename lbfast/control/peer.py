"""Who is at the other end of the control socket, as the kernel knows it."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from array import array
from typing import Any, Final

from lbfast.control.engine import Caller

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS: Final = 59
_MOST_BYTES: Final = 1024  # as much as getsockopt of this module takes: 256 groups


def caller_of(sock: socket.socket | Any) -> Caller:
    """The process that connected.  A user without a name is called by number."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Caller(pid, uid, user_name(uid), frozenset({gid, *_groups_of(sock, uid, gid)}))


def _groups_of(sock: socket.socket | Any, uid: int, gid: int) -> list[int]:
    """Its supplementary groups at the moment when it connected."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
    except OSError:  # more than fit: ask who is in which group instead
        return _groups_by_name(uid, gid)
    groups = array("I")
    groups.frombytes(raw)
    return groups.tolist()


def _groups_by_name(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except (KeyError, OSError):
        return []


def user_name(uid: int) -> str:
    """The name of a user, or its number in words."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
