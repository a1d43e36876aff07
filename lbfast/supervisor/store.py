"""Store: the service manager keeps copies of sockets and memory by name, for the case that nobody is left who has them.

Workers give everything to the next supervisor while one of them lives (``recall.py``); what they cannot
give comes from here: all of it when everybody was killed.  A copy of a listening socket
would go on taking connections that nobody accepts, so whoever gives one up shuts it down first.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Collection, Mapping, MutableMapping

from lbfast.supervisor import systemd
from lbfast.supervisor.listeners import hang_up
from lbfast.supervisor.recall import close_all
from lbfast.supervisor.start import Assets

_FIRST = 3  # of the descriptors that a manager passes
_NO_COLON = "_"  # the manager separates names by colons; an IPv6 address has some


def take(environ: MutableMapping[str, str], pid: int) -> dict[str, int]:
    """What the manager has kept for this process, by name; nobody after us sees the variables."""
    said = [environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
    if said[0] != str(pid) or not said[1].isdigit():
        return {}
    names = said[2].split(":")
    kept: dict[str, int] = {}
    for at in range(int(said[1])):
        fd = _FIRST + at
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        name = names[at] if at < len(names) else ""
        if name and name not in kept:
            kept[name] = fd
        else:
            os.close(fd)
    return kept


def give_up(kept: Mapping[str, int]) -> None:
    """Nobody needs these: the manager forgets them, and no connection waits on them any more."""
    for name, fd in kept.items():
        if is_door(name):
            hang_up(fd)
    close_all(kept.values())
    forget(kept)


def forget(names: Collection[str]) -> None:
    """The manager has none of them any more when this returns: its copy of a socket would still have the port."""
    for name in names:
        systemd.tell(f"FDSTOREREMOVE=1\nFDNAME={name}")
    if names:
        systemd.wait_heard()


def is_door(name: str) -> bool:
    return name.startswith("door.")


def listens(fd: int) -> bool:
    sock = socket.socket(fileno=fd)
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
    finally:
        sock.detach()


def stored_name(address: str, port: int, fd: int) -> str:
    """Of a listening socket; the inode tells those of one place apart."""
    return f"{stored_place(address, port)}{os.fstat(fd).st_ino}"


def stored_place(address: str, port: int) -> str:
    """How the names of all listening sockets of a place begin."""
    return f"door.{address.replace(':', _NO_COLON)}.{port}."


def wanted(assets: Assets) -> dict[str, int]:
    """What is worth keeping now."""
    shared = assets.shared
    fds = {"table": shared.table.fd, "counters": shared.counters.fd, "results": shared.results.fd}
    fds |= {f"stick.{slot}": stick.fd for slot, stick in shared.sticks.items()}
    for seat, inbox in enumerate(assets.seats.inboxes):
        fds |= {f"slab.{seat}": shared.slabs[seat].fd, f"ring.{seat}": shared.rings[seat].fd}
        fds |= {f"inbox.{seat}.receive": inbox.receive, f"inbox.{seat}.send": inbox.send}
    for listener in assets.listeners:
        fds |= {stored_name(listener.spec.address, listener.spec.port, fd): fd for fd in listener.fds}
    return fds


class Store:
    """What the manager has of this supervisor's, as far as this one has told it."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, int]] = {}  # name -> device and inode

    def sync(self, assets: Assets) -> None:
        """What has come is given, what has gone is forgotten; a manager that does not listen is told next time."""
        if not systemd.is_there():
            return
        fds = wanted(assets)
        for name in [name for name in self._kept if name not in fds]:
            if not self._forget(name):
                return
        for name, fd in fds.items():
            status = os.fstat(fd)
            what = (status.st_dev, status.st_ino)
            if self._kept.get(name) == what:
                continue
            # The program before this one may have left another one under the name.
            if not (self._forget(name) and systemd.tell(f"FDSTORE=1\nFDNAME={name}", [fd])):
                return
            self._kept[name] = what

    def clear(self) -> None:
        """At the end of a run."""
        for name in list(self._kept):
            if not self._forget(name):
                return

    def _forget(self, name: str) -> bool:
        if not systemd.tell(f"FDSTOREREMOVE=1\nFDNAME={name}"):
            return False
        self._kept.pop(name, None)
        return True
