"""What can be wrong with the [web] table beside the rest of the file.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lbfast.config.checks import Finding
from lbfast.config.clashes import Indexed, Listening
from lbfast.config.errors import render_value
from lbfast.model.addresses import is_ipv6, is_wildcard, join_address
from lbfast.model.appliance import Config, WebSettings


def check_web(data: Mapping[str, Any], config: Config | None, services: Indexed) -> Iterator[Finding]:
    """``config`` is None when the file has other errors; then only whether it serves any purpose is asked."""
    if "virtual_service" not in data and "web" not in data:
        expected = "at least one [[virtual_service]], or a [web] table, in whose pages the first one can be made"
        yield Finding(("virtual_service",), "nothing", expected)
    if config is None or config.web is None:
        return
    yield from _check_certificate(config.web)
    yield from _check_place(config.web, services)


def _check_certificate(web: WebSettings) -> Iterator[Finding]:
    if web.key is not None and web.certificate is None:
        yield Finding(("web", "key"), render_value(web.key), "a certificate beside the key, or neither of them")
    if not web.tls and web.certificate is not None:
        yield Finding(("web", "certificate"), render_value(web.certificate), "none, because tls = false")


def _check_place(web: WebSettings, services: Indexed) -> Iterator[Finding]:
    """A virtual service that listens where the web interface does."""
    listening = Listening(services)
    ports = (web.port_number,)
    wildcard = "::" if is_ipv6(web.address) else "0.0.0.0"
    held = listening.holder(web.address, ports, _any) or listening.holder(wildcard, ports, _any)
    if held is None and is_wildcard(web.address):
        family = (it for it in sorted(listening.addresses) if is_ipv6(it) == is_ipv6(web.address))
        held = next((found for it in family if (found := listening.holder(it, ports, _any))), None)
    if held is not None:
        expected = f"another port: {listening.name(held[0])} has this one"
        yield Finding(("web", "port"), join_address(web.address, web.port_number), expected)


def _any(index: int) -> bool:
    return index >= 0
