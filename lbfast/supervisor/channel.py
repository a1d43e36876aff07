"""The channel between the supervisor and one child: one JSON object per message, with descriptors."""

from __future__ import annotations

import json
import select
import socket
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

MAX_MESSAGE = 64 * 1024
MAX_FDS = 64
_GONE = (ConnectionResetError, BrokenPipeError, ConnectionRefusedError)


class ChannelError(Exception):
    """A message that is too large, or that is not one JSON object."""


class Channel:
    """One end of a ``SOCK_SEQPACKET`` socket pair.

    The kernel keeps message borders, so there is no framing and no buffer here.
    ``receive`` and ``send`` wait; ``receive_now`` and ``send_now`` never do.
    End of file (the other end is closed everywhere) reads as ``None``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, both close-on-exec."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """The descriptor, for a selector; -1 after ``close``."""
        return self._sock.fileno()

    def send(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Send, waiting while the queue is full; OSError when the other end is gone."""
        self._send(message, fds, socket.MSG_NOSIGNAL)

    def send_now(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> bool:
        """Send without waiting; False when the queue is full or the other end is gone."""
        flags = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
        try:
            self._send(message, fds, flags)
        except (BlockingIOError, *_GONE):
            return False
        return True

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for a message; None at end of file; TimeoutError when ``timeout`` seconds pass without one."""
        received = self.receive_fds(timeout)
        return None if received is None else _without_fds(*received)

    def receive_now(self) -> Message | None:
        """The next message, None at end of file; BlockingIOError when there is none yet."""
        received = self._receive(socket.MSG_DONTWAIT)
        return None if received is None else _without_fds(*received)

    def receive_fds_now(self) -> tuple[Message, list[int]] | None:
        """Like ``receive_now``, with the descriptors that came along; the caller owns and closes them."""
        return self._receive(socket.MSG_DONTWAIT)

    def receive_fds(self, timeout: float | None = None) -> tuple[Message, list[int]] | None:
        """Like ``receive``, with the descriptors that came along; the caller owns and closes them."""
        if timeout is not None:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN)
            if not poller.poll(max(0.0, timeout) * 1000):
                raise TimeoutError(f"no message within {timeout} s")
        return self._receive(0)

    def close(self) -> None:
        """Close this end; closing twice is harmless."""
        self._sock.close()

    # Not socket.send_fds and recv_fds: in Python 3.11 both take flags and ignore them.

    def _send(self, message: Mapping[str, object], fds: Sequence[int], flags: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        self._sock.sendmsg([_encode(message)], rights, flags)

    def _receive(self, flags: int) -> tuple[Message, list[int]] | None:
        room = socket.CMSG_LEN(MAX_FDS * array("i").itemsize)
        try:
            data, rights, msg_flags, _ = self._sock.recvmsg(MAX_MESSAGE, room, flags | socket.MSG_CMSG_CLOEXEC)
        except _GONE:
            return None
        fds = [fd for level, kind, packed in rights for fd in _unpack(level, kind, packed)]
        if not data:
            return None
        try:
            if msg_flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelError(f"a message of more than {MAX_MESSAGE} bytes or {MAX_FDS} descriptors arrived")
            return _decode(data), fds
        except ChannelError:
            _close_all(fds)
            raise


def _encode(message: Mapping[str, object]) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise ChannelError(f"a message of {len(data)} bytes does not fit the channel's {MAX_MESSAGE}")
    return data


def _decode(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"not JSON: {data[:80]!r}") from error
    if not isinstance(message, dict):
        raise ChannelError(f"not a JSON object: {data[:80]!r}")
    return message


def _unpack(level: int, kind: int, packed: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    fds = array("i")
    fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
    return fds.tolist()


def _without_fds(message: Message, fds: list[int]) -> Message:
    """Close descriptors nobody asked for, so that they cannot leak."""
    _close_all(fds)
    return message


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        socket.close(fd)
