"""Addresses that the configuration wants to connect from: each must be one of this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterable, Iterator

from lbfast.model.addresses import is_ipv6
from lbfast.model.service import VirtualService
from lbfast.supervisor.faults import Fault


def find_source_faults(
    services: Iterable[tuple[int, VirtualService]], away: Collection[str] = frozenset()
) -> list[Fault]:
    """What cannot be connected from.  After service addresses are raised: these may be named as well.

    ``away``: addresses that need not be here yet, because in a pair they come and go.
    """
    faults = []
    for position, service in services:
        for key, address in _sources(service):
            if address not in away and not _is_ours(address):
                found = f'"{address}", which is not on this machine'
                faults.append(Fault(position, key, found, "an address of this machine: every connect would fail"))
    return faults


def _sources(service: VirtualService) -> Iterator[tuple[str, str]]:
    for address in service.sources:
        yield "source_address" if service.source_address == "vip" else "source_addresses", address
    if service.health_check.source_address is not None:
        yield "health_check.source_address", service.health_check.source_address


def _is_ours(address: str) -> bool:
    """Whether the kernel lets a connect begin there; asked of the kernel, so that its settings count."""
    with socket.socket(socket.AF_INET6 if is_ipv6(address) else socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)  # ask for the address only
            sock.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


_IP_BIND_ADDRESS_NO_PORT = 24
