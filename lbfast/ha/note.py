"""What connections the ha process has in its hands, kept by the supervisor: should it die, its successor goes on.

A memfd: one byte, whether the peer has them all, then the stream of their images as far as it has come.  A frozen
socket ends without a word, so those whose images are not in the stream yet are entrusted to the supervisor themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Of this box in a move."""

    GIVEN = "given"
    TAKEN = "taken"


@dataclass(frozen=True)
class Kept:
    """A note that the process before this one has left."""

    role: Role
    at: int  # when it was begun
    has_arrived: bool  # the addresses are here since
    is_shipped: bool
    stream: bytearray
    entrusted: tuple[int, ...] = ()  # descriptors, client and server of each connection in turn; the reader's to close


@dataclass
class Note:
    """``say``: to the supervisor, with descriptors."""

    say: Callable[[Mapping[str, object], Sequence[int]], bool]
    _fd: int = -1

    def begin(self, role: Role, at: int) -> None:
        """A new one, in place of an older one."""
        self._close()
        self._fd = os.memfd_create("lbfast-moving", os.MFD_CLOEXEC)
        os.write(self._fd, b"\0")
        self.say({"event": "moving", "role": role, "at": at}, [self._fd])

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """More of the stream."""
        try:
            if self._fd >= 0:
                os.write(self._fd, data)
        except OSError:
            self.end()  # no memory: half a stream is worth less than none

    def entrust(self, fds: Sequence[int]) -> None:
        """In place of those before: should we die, these sockets do not; MAX_FDS less one at most."""
        if self._fd >= 0:
            self.say({"event": "entrust"}, fds)

    def mark_shipped(self) -> None:
        if self._fd >= 0:
            os.pwrite(self._fd, b"\1", 0)

    def end(self) -> None:
        """Nothing is in our hands any more."""
        if self._fd >= 0:
            self._close()
            self.say({"event": "moving"}, [])

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_note(message: Mapping[str, object], fd: int, *entrusted: int) -> Kept:
    """As the supervisor hands it over; the descriptors are the caller's."""
    size = os.fstat(fd).st_size
    data = bytearray()
    while len(data) < size and (part := os.pread(fd, size - len(data), len(data))):
        data += part
    return Kept(
        role=Role(str(message["role"])),
        at=int(str(message["at"])),
        has_arrived=message.get("arrived") is True,
        is_shipped=data[:1] == b"\1",
        stream=data[1:],
        entrusted=tuple(os.dup(it) for it in entrusted),
    )
