"""Recall: a worker whose supervisor was killed gives the next supervisor what it holds.

Each worker has a listening socket in the runtime directory, made by the supervisor before
the fork, and looks at it only when its channel is gone.  Whoever connects must be root or the
user that the supervisor was; that connection becomes the worker's channel, and the
first messages on it name the descriptors that come along.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from lbfast.config.paths import runtime_dir
from lbfast.supervisor.channel import MAX_FDS, Channel, ChannelError

_ANSWER_WITHIN = 5.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED


def recall_path(seat: int) -> Path:
    """Of the worker on a seat."""
    return runtime_dir() / f"worker{seat}.sock"


def open_recall(seat: int) -> socket.socket:
    """The listening socket; the one of an earlier worker on this seat gives way."""
    path = recall_path(seat)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.bind(str(path))
        os.chmod(path, 0o600)
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


def answer_recall(sock: socket.socket, owner: int) -> Channel | None:
    """In the worker: the new channel, or None when whoever called has no right to it."""
    try:
        caller, _ = sock.accept()
    except OSError:
        return None
    raw = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(raw)[1] not in (0, owner):
        caller.close()
        return None
    caller.setblocking(True)
    return Channel(caller)


def give_holdings(channel: Channel, holdings: Mapping[str, int]) -> None:
    """In the worker: everything by name."""
    names = list(holdings)
    for start in range(0, len(names), MAX_FDS):
        part = names[start : start + MAX_FDS]
        channel.send({"event": "holds", "names": part}, [holdings[name] for name in part])
    channel.send({"event": "holds", "names": [], "last": True})


def recall(seat: int) -> tuple[Channel, dict[str, int]] | None:
    """In the new supervisor: the worker's channel and what it holds; None when it does not answer."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    sock.settimeout(_ANSWER_WITHIN)
    try:
        sock.connect(str(recall_path(seat)))
    except OSError:
        sock.close()
        return None
    sock.settimeout(None)
    channel = Channel(sock)
    held: dict[str, int] = {}
    try:
        while (received := channel.receive_fds(_ANSWER_WITHIN)) is not None:
            message, fds = received
            held.update(zip(message.get("names", ()), fds, strict=True))
            if message.get("last"):
                return channel, held
    except (OSError, ChannelError, TimeoutError, ValueError):
        pass
    close_all(held.values())
    channel.close()
    return None


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
