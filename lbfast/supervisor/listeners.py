"""Opens the listening sockets: one for each worker on every address and port, all of them or none.

The supervisor keeps these sockets open for as long as it lives.  When a worker
dies the connections queued on its sockets wait for the next worker of the same
index.  Accepted sockets inherit the options that are set here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lbfast.config.errors import render_value
from lbfast.config.layout import ListenerSpec
from lbfast.model.addresses import is_wildcard
from lbfast.model.service import VirtualService
from lbfast.model.values import one_of
from lbfast.supervisor.faults import Fault
from lbfast.supervisor.port_owner import family_of, find_owner
from lbfast.supervisor.sources import find_source_faults

_SILENT_S = 3  # a client that says nothing for so long is taken up all the same, when it next acknowledges
_SO_ATTACH_FILTER, _BPF_RET = 26, 0x06
_IP_FREEBIND = 15
_TCPI_UNACKED = 24  # offset in struct tcp_info
_SYSTEM_CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_CONGESTION_CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_BACKLOG = 65_535  # the kernel cuts it to net.core.somaxconn


@dataclass(frozen=True)
class Listener:
    """The sockets of one address and port; plain descriptors, closed by ``close_listeners``.

    As many as there ever were workers: closing one would reset who waits on it.  See ``sockets_of``.
    """

    spec: ListenerSpec
    fds: tuple[int, ...]


class ListenFaults(Exception):
    """Listeners that cannot be opened; none is left open."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.found for fault in faults))
        self.faults = tuple(faults)


def open_listeners(
    specs: Sequence[ListenerSpec],
    services: Mapping[str, tuple[int, VirtualService]],
    workers: int,
    ours: Sequence[Listener] = (),
    *,
    free_bind: bool = False,
) -> list[Listener]:
    """Open everything or raise ListenFaults; ``services``: label -> (position in the file, settings).

    ``ours`` are open already and may overlap: 0.0.0.0 takes over from a single address, or the other way round.
    ``free_bind``: the addresses need not be here yet; in a pair they come and go.
    """
    new = [spec for spec in specs if not any(_overlap(spec, other.spec) for other in ours)]
    probed = (_probe(spec, services[spec.label][0], free_bind=free_bind) for spec in new)
    faults = [fault for fault in probed if fault is not None]
    away = {str(service.address) for _, service in services.values()} if free_bind else set()
    faults += find_source_faults(services.values(), away)
    opened: list[Listener] = []
    for spec in () if faults else specs:
        position, service = services[spec.label]
        fds: list[int] = []
        try:
            while len(fds) < workers:
                fds.append(_open(spec, service, free_bind=free_bind))
        except OSError as error:
            faults.append(_explain(spec, position, error))
        opened.append(Listener(spec, tuple(fds)))
    if faults:
        close_listeners(opened)
        raise ListenFaults(faults)
    return opened


def sockets_of(listener: Listener, place: int, workers: int) -> tuple[int, ...]:
    """Those that the worker of a place accepts on, of so many workers."""
    return listener.fds[place::workers]


def doors_of(listeners: Sequence[Listener], place: int, workers: int) -> tuple[list[list[object]], list[int]]:
    """What the worker of a place listens on: [address, port, service slot] and a descriptor for each socket."""
    pairs = [(it.spec, fd) for it in listeners for fd in sockets_of(it, place, workers)]
    return [[spec.address, spec.port, spec.service] for spec, _ in pairs], [fd for _, fd in pairs]


def open_more(listener: Listener, service: VirtualService, workers: int) -> list[int]:
    """The sockets that are missing for so many workers; all or OSError."""
    more: list[int] = []
    try:
        while len(listener.fds) + len(more) < workers:
            more.append(_open(listener.spec, service, free_bind=True))  # the address may be the peer's just now
    except BaseException:
        for fd in more:
            os.close(fd)
        raise
    return more


def apply_options(listener: Listener, service: VirtualService) -> None:
    """Give open sockets the options that a changed service asks for; what they accept from now on inherits them."""
    for fd in listener.fds:
        sock = socket.socket(fileno=fd)
        try:
            _set_options(sock, service)
            _set_acknowledgement(sock, service)
        finally:
            sock.detach()


def deafen(listener: Listener) -> None:
    """Let nobody new in: packets for the listening sockets are dropped, what is queued can still be accepted.

    A client that comes now tries again after a second, and is refused then.
    """
    for fd in listener.fds:
        sock = socket.socket(fileno=fd)
        try:
            attach_drop_all(sock)
        finally:
            sock.detach()


def queued(listener: Listener) -> int:
    """Connections that wait to be accepted."""
    return sum(_queue_of(fd) for fd in listener.fds)


def attach_drop_all(sock: socket.socket) -> None:
    """A socket filter of one instruction, "keep 0 bytes"."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RET, 0, 0, 0))
    head = struct.pack("HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


def _queue_of(fd: int) -> int:
    sock = socket.socket(fileno=fd)
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    finally:
        sock.detach()
    return int(struct.unpack_from("I", info, _TCPI_UNACKED)[0])  # of a listening socket: its accept queue


def _overlap(one: ListenerSpec, other: ListenerSpec) -> bool:
    """Whether one of them listens on every address and the other on one of these."""
    return (
        one.port == other.port
        and family_of(one.address) == family_of(other.address)
        and (is_wildcard(one.address) or is_wildcard(other.address))
    )


def close_listeners(listeners: Sequence[Listener], *, for_good: bool = False) -> None:
    """Close every socket; connections still queued on them are reset by the kernel.

    ``for_good``: whoever else has a copy does not listen on it any more either.
    """
    for listener in listeners:
        for fd in listener.fds:
            if for_good:
                hang_up(fd)
            os.close(fd)


def hang_up(fd: int) -> None:
    """A listening socket listens no more, whoever has a copy."""
    sock = socket.socket(fileno=fd)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it did not listen
    finally:
        sock.detach()


def _probe(spec: ListenerSpec, position: int, *, free_bind: bool) -> Fault | None:
    """Bind once without SO_REUSEPORT.

    With it, the kernel would let us join the listeners of any other process of
    the same user without a word, and share its clients.
    """
    try:
        with _bound(spec, reuse_port=False, free_bind=free_bind):
            return None
    except OSError as error:
        return _explain(spec, position, error)


def _open(spec: ListenerSpec, service: VirtualService, *, free_bind: bool) -> int:
    sock = _bound(spec, reuse_port=True, free_bind=free_bind)
    try:
        _set_options(sock, service)
        sock.listen(_BACKLOG)
        _set_acknowledgement(sock, service)
    except BaseException:
        sock.close()
        raise
    return sock.detach()


def _bound(spec: ListenerSpec, *, reuse_port: bool, free_bind: bool) -> socket.socket:
    family = family_of(spec.address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Connections of an earlier run in TIME_WAIT must not keep us from starting.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if free_bind:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # for IPv6 too
        sock.bind((spec.address, spec.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket, service: VirtualService) -> None:
    """What accepted sockets inherit: free of any call per connection."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # urgent data is relayed in its place
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENT_S if service.client_speaks_first else 0)
    _set_congestion_control(sock, service.congestion_control)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(service.tcp_keepalive))
    if service.tcp_keepalive:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, service.keepalive_idle // 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, service.keepalive_interval // 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, service.keepalive_count)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, service.tcp_user_timeout)


def _set_acknowledgement(sock: socket.socket, service: VirtualService) -> None:
    """A client that speaks first is answered soon: its acknowledgement can travel with the answer.

    Inherited as well, but forgotten by listen().
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int(not service.client_speaks_first))


def _set_congestion_control(sock: socket.socket, name: str) -> None:
    if name == "system":  # said anew: a commit may change an open listener
        name = _SYSTEM_CONGESTION_CONTROL.read_text().strip()
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, name) from None
    except PermissionError:
        pass  # an ordinary user may have only those of net.ipv4.tcp_allowed_congestion_control: the system's stays


def _explain(spec: ListenerSpec, position: int, error: OSError) -> Fault:
    where = f"{ip_address(spec.address)} port {spec.port}"
    if error.errno == errno.EADDRINUSE:
        owner = find_owner(spec.address, spec.port) or "another process"
        return Fault(position, "ports", f"{where}: address already in use by {owner}", "a port that nobody listens on")
    if error.errno == errno.EACCES:
        return Fault(
            position,
            "ports",
            f"{where}: no right to listen on a port below {_unprivileged_start()}",
            "root, or CAP_NET_BIND_SERVICE, or a higher port",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Fault(position, "address", f"{where}: the address is not on this machine", "an address of this machine")
    if error.errno == errno.ENOENT:
        found = f"{render_value(error.filename)}, which this kernel does not have"
        names = ["system", *_CONGESTION_CONTROLS.read_text().split()]
        return Fault(position, "congestion_control", found, one_of(names))
    return Fault(position, "ports", f"{where}: {error.strerror}", "an address and port that can be listened on")


def _unprivileged_start() -> str:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            return file.read().strip()
    except OSError:
        return "1024"
