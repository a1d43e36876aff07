"""Virtual services that are right in themselves but cannot live beside each other.  Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from uuid import UUID

from lbfast.config.checks import Finding, server_paths
from lbfast.config.errors import KeyPath, render_value
from lbfast.model.addresses import is_ipv6, is_wildcard, join_address
from lbfast.model.ranges import render_ranges
from lbfast.model.service import VirtualService

# Each needs one socket in every worker, and a process may have 20,000 descriptors where limits are tight.
MOST_LISTENERS = 16_384

Indexed = Sequence[tuple[int, VirtualService]]
"""Services with their place in the file; those that are not valid in themselves are left out."""


def check_together(services: Indexed) -> Iterator[Finding]:
    """Everything that is wrong between services."""
    yield from check_labels(services)
    yield from check_identities(services)
    total = sum(last - first + 1 for _, service in services for first, last in service.ports)
    if total > MOST_LISTENERS:
        expected = f"at most {MOST_LISTENERS} pairs of address and port"
        yield Finding(("virtual_service",), f"{total} pairs of address and port in all", expected)
        return  # the checks below look at each port
    listening = Listening(services)
    yield from check_overlaps(services, listening)
    yield from check_loops(services, listening)


def check_labels(services: Indexed) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, service in services:
        if first.setdefault(service.label, index) != index:
            expected = f"a label of its own: virtual_service[{first[service.label]}] has this one"
            yield Finding(("virtual_service", index, "label"), render_value(service.label), expected)
        reals: dict[str, int] = {}
        for place, real in enumerate(service.real_servers):
            if reals.setdefault(real.label, place) != place:
                expected = f"a label of its own: real_server[{reals[real.label]}] of this service has this one"
                path = ("virtual_service", index, "real_server", place, "label")
                yield Finding(path, render_value(real.label), expected)


def check_identities(services: Indexed) -> Iterator[Finding]:
    seen: set[UUID] = set()
    for index, service in services:
        path: KeyPath = ("virtual_service", index)
        holders = [(path, service.id), *((place, server.id) for place, server in server_paths(path, service))]
        for holder, identity in holders:
            if identity is None:
                continue
            if identity in seen:
                yield Finding((*holder, "id"), f'"{identity}" a second time', "an id of its own, or none: one is made")
            seen.add(identity)


class Listening:
    """Which service listens at which address and port."""

    def __init__(self, services: Indexed) -> None:
        self._holders: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self._labels = {index: service.label for index, service in services}
        self.addresses = {service.address for _, service in services}
        for index, service in services:
            for port in service.port_numbers:
                self._holders[service.address, port].append(index)

    def holder(self, address: str, ports: Iterable[int], accept: Callable[[int], bool]) -> tuple[int, int] | None:
        """(service, port): the first at exactly this address that ``accept`` takes."""
        for port in ports:
            for index in self._holders.get((address, port), ()):
                if accept(index):
                    return index, port
        return None

    def name(self, index: int) -> str:
        return f"virtual_service[{index}] {render_value(self._labels[index])}"


def check_overlaps(services: Indexed, listening: Listening) -> Iterator[Finding]:
    """Two services on one address and port: told at the later one, or at the one that names an address.

    "::" is IPv6 only here, as the listening sockets are, so it does not meet 0.0.0.0.
    """
    for index, service in services:
        held = listening.holder(service.address, service.port_numbers, index.__gt__)
        if held is None and not is_wildcard(service.address):
            held = listening.holder(_wildcard_of(service.address), service.port_numbers, index.__ne__)
        if held is not None:
            found = f'"{render_ranges(service.ports)}" on {service.address}'
            expected = f"other ports or another address: {listening.name(held[0])} has port {held[1]} there"
            yield Finding(("virtual_service", index, "ports"), found, expected)


def check_loops(services: Indexed, listening: Listening) -> Iterator[Finding]:
    """A real server that is a virtual service: connections would run in circles until nothing is left."""
    for index, service in services:
        for path, server in server_paths(("virtual_service", index), service):
            ports = (server.port,) if server.port else service.port_numbers
            held = listening.holder(server.address, ports, _any)
            if held is None and (_is_loopback(server.address) or server.address in listening.addresses):
                held = listening.holder(_wildcard_of(server.address), ports, _any)
            if held is not None:
                expected = f"another machine or port: {listening.name(held[0])} listens there"
                yield Finding((*path, "address"), join_address(server.address, held[1]), expected)


def _any(index: int) -> bool:
    return index >= 0


def _wildcard_of(address: str) -> str:
    return "::" if is_ipv6(address) else "0.0.0.0"


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
