"""IP addresses and networks of the configuration: validated, kept as canonical text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any

from lbfast.model.values import Parsed, refuse, text_schema

_ADDRESS = 'an IPv4 or IPv6 address such as "192.168.85.150" or "2001:db8::150"'
_NETWORK = 'a network such as "10.0.0.0/8", "2001:db8::/32" or a single address'


def is_ipv6(address: str) -> bool:
    return ":" in address


def is_wildcard(address: str) -> bool:
    """Whether it stands for every address of its family."""
    return address in ("0.0.0.0", "::")


def join_address(address: str, port: int) -> str:
    """``192.0.2.1:443`` or ``[2001:db8::1]:443``."""
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"


def _parse_ip(value: Any) -> IPv4Address | IPv6Address:
    if not isinstance(value, str):
        raise refuse(_ADDRESS)
    try:
        address = ip_address(value)
    except ValueError:
        raise refuse(_ADDRESS) from None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise refuse(f'the IPv4 address itself: "{address.ipv4_mapped}"')
        if address.is_link_local:  # neither bind() nor connect() takes one without its zone
            raise refuse("a routable address: link-local ones (fe80::/10) hold on one link only and cannot be balanced")
        if address.scope_id is not None:
            raise refuse("an address without a zone")
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        raise refuse("a unicast address: this one is multicast or broadcast")
    return address


def _parse_listen_address(value: Any) -> str:
    return str(_parse_ip(value))


def _parse_host_address(value: Any) -> str:
    address = _parse_ip(value)
    if address.is_unspecified:
        raise refuse(f"the address of one machine: {address} stands for every address")
    return str(address)


def _parse_network(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse(_NETWORK)
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise refuse(_NETWORK) from None
    if "/" in value and str(network.network_address) != str(ip_address(value.split("/")[0])):
        raise refuse(f'the network itself: "{network}"')
    return str(network)


_SCHEMA = text_schema(most=45, example="192.168.85.200")

ListenAddress = Annotated[str, Parsed(_parse_listen_address, str, _SCHEMA)]
"""An address to accept on; 0.0.0.0 and :: mean every address of the family."""

HostAddress = Annotated[str, Parsed(_parse_host_address, str, _SCHEMA)]
"""The address of one machine."""

Network = Annotated[str, Parsed(_parse_network, str, text_schema(most=49, example="10.0.0.0/8"))]
"""A network in CIDR form; a single address counts as a network of one."""
