"""Connections come out of our own workers, as letters with their sockets: to be given away, or to be ended."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable, Iterable

from lbfast._letters import MOST_BYTES, read_letter
from lbfast._tcp_image import end_by_reset
from lbfast.ha.doors import Doors, Held
from lbfast.model.state import Ended

COLLECT_S = 0.5  # for the workers to send everything
SLOW = "a worker does not send its connections in time; those stay there"
_HANDS = 6
_MOST_A_WAKE = 64  # letters: heartbeats come first


async def collect(
    doors: Doors,
    slots: Iterable[int],
    take: Callable[[Held], None],
    tell: Callable[[str], None],
    ended: Ended = Ended.MOVED,
) -> bool:
    """Everything that the workers send of these services, until they have closed their ends; False: not in time.

    ``ended``: what their records of these connections say.  OSError when the supervisor does not answer.
    """
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours:
        try:
            with theirs:
                await doors.open(list(slots), theirs.fileno(), ended)
            async with asyncio.timeout(COLLECT_S):
                while _collect_some(ours, take, tell):
                    await _readable(ours)
                return True
        except TimeoutError:
            return False
        finally:
            # Whatever cannot be sent from here on stays with its worker; what has been sent must not be lost.
            ours.shutdown(socket.SHUT_RD)
            while _collect_some(ours, take, tell):
                pass


def _collect_some(ours: socket.socket, take: Callable[[Held], None], tell: Callable[[str], None]) -> bool:
    """False when there is nothing to come any more."""
    for _ in range(_MOST_A_WAKE):
        try:
            data, fds = _receive(ours)
        except BlockingIOError:
            return True
        if not data:
            return False
        try:
            take(_read(data, fds))
        except (ValueError, OSError) as error:
            tell(f"a connection is lost: {error}")
    return True


def _read(data: bytes, fds: list[int]) -> Held:
    try:
        service, real, record, inbound, outbound = read_letter(data, len(fds))
        strings, rest = [], fds[2:]
        for block, size in (inbound, outbound):
            if size:
                block = _drain(rest[0], size)
                rest = rest[2:]
            strings.append(block)
        for fd in fds[:2]:
            end_by_reset(fd)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    for fd in fds[2:]:
        os.close(fd)
    return Held((fds[0], fds[1]), service, real, record, strings[0], strings[1])


def _drain(pipe: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(pipe, size)
        if not part:
            raise OSError("a pipe holds less than it should")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = sock.recvmsg(MOST_BYTES, socket.CMSG_SPACE(_HANDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


async def _readable(sock: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
