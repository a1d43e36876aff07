"""The web interface's listening socket: opened here, so that ports below 1024 can be had and nobody is refused while
the web process is replaced."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from lbfast.config.errors import ConfigError, Problem
from lbfast.model.addresses import is_ipv6, join_address
from lbfast.model.appliance import WebSettings
from lbfast.supervisor.port_owner import family_of, find_owner

_BACKLOG = 256

Tell = Callable[[tuple[str, ...], str, str], Problem]
"""Ties a key, what was found and what is expected to a line of the file (``Loaded.problem``)."""


@dataclass(frozen=True)
class WebDoor:
    """An open socket and the place that it listens at."""

    address: str
    port: int
    fd: int

    def is_at(self, web: WebSettings) -> bool:
        return (self.address, self.port) == (web.address, web.port_number)

    def close(self) -> None:
        os.close(self.fd)


def open_web_door(web: WebSettings, tell: Tell, ours: WebDoor | None = None) -> WebDoor:
    """Listen, or ConfigError with who has the port.  ``ours`` is open already and may overlap."""
    try:
        if ours is None or ours.port != web.port_number:
            # With SO_REUSEPORT we would join another process of the same user without a word.
            _bound(web, reuse_port=False).close()
        sock = _bound(web, reuse_port=True)
        try:
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError([_explain(web, error, tell)]) from None
    return WebDoor(web.address, web.port_number, sock.detach())


def _bound(web: WebSettings, *, reuse_port: bool) -> socket.socket:
    family = family_of(web.address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        if is_ipv6(web.address):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((web.address, web.port_number))
    except BaseException:
        sock.close()
        raise
    return sock


def _explain(web: WebSettings, error: OSError, tell: Tell) -> Problem:
    where = join_address(web.address, web.port_number)
    if error.errno == errno.EADDRINUSE:
        owner = find_owner(web.address, web.port_number) or "another process"
        return tell(("web", "port"), f"{where}: address already in use by {owner}", "a port that nobody listens on")
    if error.errno == errno.EADDRNOTAVAIL:
        return tell(("web", "address"), f"{where}: the address is not on this machine", "an address of this machine")
    if error.errno == errno.EACCES:
        return tell(("web", "port"), f"{where}: no right to listen there", "a port from 1024 up, or to be run by root")
    return tell(("web", "port"), f"{where}: {error.strerror}", "an address and port that can be listened on")
