"""Decides, from facts only, which service addresses must be raised and on which interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from lbfast.supervisor.faults import Fault
from lbfast.supervisor.netlink import IFF_LOOPBACK, IFF_UP, IPAddress, Link, LinkAddress


@dataclass(frozen=True)
class WantedAddress:
    """A virtual service's address, and the interface it names, if any."""

    service: int  # position in the file
    address: IPAddress
    interface: str | None


@dataclass(frozen=True)
class Placement:
    """An address to raise.

    The prefix is the whole address (/32, /128), as VRRP daemons do it, not the
    subnet's: the address adds no second route to the subnet, the kernel does not
    choose it as the source of the machine's own connections, and it is not
    deleted along with the interface's primary address.
    """

    link: Link
    address: IPAddress
    service: int

    @property
    def prefix(self) -> int:
        return self.address.max_prefixlen


@dataclass(frozen=True)
class Subnet:
    """A network that an interface is part of."""

    link: Link
    network: IPv4Network | IPv6Network


def plan_addresses(
    wanted: Iterable[WantedAddress],
    links: Sequence[Link],
    addresses: Sequence[LinkAddress],
    is_local: Callable[[IPAddress], bool],
) -> tuple[list[Placement], list[Fault]]:
    """What to raise where, each address once, and what cannot be; addresses of this machine are left alone."""
    subnets = find_subnets(links, addresses)
    placements: dict[IPAddress, Placement] = {}
    faults: list[Fault] = []
    for want in wanted:
        named = _named_link(want, links) if want.interface else None
        if isinstance(named, Fault):  # also of an address that is here already: a slip that would show at the next boot
            faults.append(named)
            continue
        if want.address.is_unspecified or want.address in placements or is_local(want.address):
            continue
        link = named or _link_of(want, subnets, links)
        fault = link if isinstance(link, Fault) else _unfit(want, link, subnets)
        if isinstance(link, Link) and fault is None:
            placements[want.address] = Placement(link, want.address, want.service)
        elif fault is not None:
            faults.append(fault)
    return list(placements.values()), faults


def find_subnets(links: Sequence[Link], addresses: Sequence[LinkAddress]) -> list[Subnet]:
    """The networks with room for another address; the most specific first, without those of the loopback."""
    by_index = {link.index: link for link in links}
    found = {
        Subnet(by_index[one.link], ip_network((one.address, one.prefix), strict=False))
        for one in addresses
        if one.link in by_index
        and not by_index[one.link].flags & IFF_LOOPBACK
        and one.prefix < one.address.max_prefixlen
        and not (one.address.version == 6 and one.address.is_link_local)
    }
    return sorted(found, key=lambda subnet: (-subnet.network.prefixlen, subnet.link.index, str(subnet.network)))


def _named_link(want: WantedAddress, links: Sequence[Link]) -> Link | Fault:
    for link in links:
        if link.name == want.interface:
            return link
    names = ", ".join(f'"{link.name}"' for link in links)
    return Fault(want.service, "interface", f'"{want.interface}"', f"an interface of this machine: {names}")


def _link_of(want: WantedAddress, subnets: Sequence[Subnet], links: Sequence[Link]) -> Link | Fault:
    for subnet in subnets:
        if want.address in subnet.network:
            return subnet.link
    return Fault(
        want.service,
        "address",
        f'"{want.address}", which is neither on this machine nor in the subnet of one of its interfaces',
        f"an address of this machine, one in a subnet ({_list_subnets(subnets, links)}), "
        f"or `interface` to name the interface that shall carry it",
    )


def _unfit(want: WantedAddress, link: Link, subnets: Sequence[Subnet]) -> Fault | None:
    """Why this address cannot be raised on this interface."""
    if not link.flags & IFF_UP:
        key = "interface" if want.interface else "address"
        found = f'"{want.interface or want.address}", but interface {link.name} is down'
        return Fault(want.service, key, found, f"an interface that is up (`ip link set {link.name} up`)")
    for subnet in subnets:
        network = subnet.network
        if subnet.link != link or network.prefixlen >= 31 or not isinstance(want.address, IPv4Address):
            continue
        if want.address in (network.network_address, network.broadcast_address):
            kind = "network" if want.address == network.network_address else "broadcast"
            found = f'"{want.address}", the {kind} address of {link.name}\'s subnet {network}'
            return Fault(want.service, "address", found, "the address of one machine in that subnet")
    return None


def _list_subnets(subnets: Sequence[Subnet], links: Sequence[Link]) -> str:
    if subnets:
        in_order = sorted(subnets, key=lambda subnet: (subnet.link.index, subnet.network.version))
        return ", ".join(f"{subnet.link.name} {subnet.network}" for subnet in in_order)
    names = ", ".join(link.name for link in links) or "none"
    return f"this machine has none; its interfaces: {names}"
