"""The words that several verbs share on the command line, each with its help."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from cyclopts import Parameter

from lbfast.cli.clean import quote
from lbfast.cli.errors import BadUsage

Service = Annotated[str, Parameter(name="VS", help="Label of the virtual service.", allow_leading_hyphen=True)]
Real = Annotated[str, Parameter(name="REAL", help="Label of the real server.", allow_leading_hyphen=True)]
Address = Annotated[str, Parameter(name="IP", help="Address of the client.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print the answer as JSON, for programs.")]
Reason = Annotated[
    str | None, Parameter(name="--reason", help="Why, for those who look later.", allow_leading_hyphen=True)
]


def address(text: str) -> str:
    """A client's address as given; BadUsage when it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadUsage(f"{quote(text)} is not an IP address; write one like 10.1.2.3 or 2001:db8::3") from None


def network(text: str) -> str:
    """A client's address or a network as given; BadUsage when it is neither."""
    try:
        if "/" not in text:
            return str(ipaddress.ip_address(text))
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        hint = ""
        if "host bits" in str(error):
            hint = f"; the network is {ipaddress.ip_network(text, strict=False)}"
        raise BadUsage(
            f"{quote(text)} is neither an IP address nor a network{hint}; write 10.1.2.3, 10.1.2.0/24 or 2001:db8::/64"
        ) from None
