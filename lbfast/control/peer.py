"""Who is at the other end of the control socket, as the kernel knows it."""

from __future__ import annotations

import pwd
import socket
import struct
from typing import Any

from lbfast.control.engine import Caller

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def caller_of(sock: socket.socket | Any) -> Caller:
    """The process that connected.  A user without a name is called by number."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Caller(pid, uid, user_name(uid))


def user_name(uid: int) -> str:
    """The name of a user, or its number in words."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
