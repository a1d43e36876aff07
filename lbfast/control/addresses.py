"""Client addresses as people type them, turned into the keys of a stick table."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from lbfast.control.catalog import ServiceInfo
from lbfast.control.protocol import ControlError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_address(text: str) -> Address:
    """An address without zone; an IPv4 address written as IPv6 is IPv4."""
    try:
        address = ip_address(text.strip())
    except ValueError:
        raise ControlError("bad_argument", f"client: {text!r} is not an address, for example 10.20.30.40") from None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise ControlError(
                "bad_argument", f"client: {text!r} names a zone; give the address without %{address.scope_id}"
            )
        return address.ipv4_mapped or address
    return address


def parse_network(text: str) -> Network:
    """An address or a CIDR; bits beyond the prefix are taken as a slip of the pen and dropped."""
    if "/" not in text:
        return ip_network(parse_address(text))
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ControlError(
            "bad_argument", f"client: {text!r} is neither an address nor a CIDR, for example 10.20.0.0/16"
        ) from None


def mask_of(service: ServiceInfo, version: int) -> int:
    """The prefix length under which the service knows its clients."""
    return service.mask_v4 if version == 4 else service.mask_v6


def key_of(service: ServiceInfo, address: Address) -> str:
    """The text under which the stick table of the service holds this client."""
    return str(ip_network((address, mask_of(service, address.version)), strict=False).network_address)


def covering(service: ServiceInfo, network: Network) -> Network:
    """The network widened to whole entries of the service's stick table."""
    mask = mask_of(service, network.version)
    return network if network.prefixlen <= mask else network.supernet(new_prefix=mask)


def is_inside(client: str, network: Network) -> bool:
    """Whether an entry or connection with this address lies in the network."""
    address = ip_address(client)
    return address.version == network.version and address in network
