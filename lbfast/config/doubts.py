"""What is allowed but hardly meant: told as warnings, never refused.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from lbfast.config.checks import Finding, server_paths
from lbfast.config.errors import KeyPath, render_value
from lbfast.model.addresses import join_address
from lbfast.model.appliance import Config
from lbfast.model.durations import render_duration
from lbfast.model.series import most_bytes, series_of
from lbfast.model.service import FallbackServer, VirtualService

MUCH_FOR_GRAPHS: Final = 1_000_000_000  # bytes


def find_doubts(config: Config) -> Iterator[Finding]:
    """Everything worth a second look."""
    yield from _doubts_of_graphs(config)
    if config.web is not None and not config.web.tls and not ip_address(config.web.address).is_loopback:
        yield Finding(("web", "tls"), "false", "true: without it passwords can be read by whoever is on the way")
    for index, service in enumerate(config.virtual_services):
        yield from _doubts_of(("virtual_service", index), service)


def _doubts_of_graphs(config: Config) -> Iterator[Finding]:
    series = series_of(len(service.real_servers) for service in config.virtual_services)
    size = most_bytes(series, config.graphs.levels)
    if size > MUCH_FOR_GRAPHS:
        expected = "shorter times, unless the disk has room for that"
        yield Finding(("graphs",), f"up to {size / 1e9:.1f} GB on disk for {series} series", expected)


def _doubts_of(path: KeyPath, service: VirtualService) -> Iterator[Finding]:
    check = service.health_check
    if not service.real_servers:
        yield Finding((*path, "real_server"), "no real server", "at least one [[virtual_service.real_server]]")
    elif all(real.weight == 0 for real in service.real_servers):
        expected = "one weight above 0: no new client can be served"
        yield Finding((*path, "real_server"), "only weights of 0", expected)
    if check.type != "none" and check.timeout > check.interval:
        found = f'"{render_duration(check.timeout)}"'
        expected = f"at most the interval, {render_duration(check.interval)}: slow answers stretch it"
        yield Finding((*path, "health_check", "timeout"), found, expected)
    yield from _same_server_twice(path, service)


def _same_server_twice(path: KeyPath, service: VirtualService) -> Iterator[Finding]:
    first: dict[tuple[str, int | None], str] = {}
    for place, server in server_paths(path, service):
        if isinstance(server, FallbackServer):
            continue
        label = first.setdefault((server.address, server.port), server.label)
        if label != server.label:
            found = join_address(server.address, server.port) if server.port else server.address
            expected = f"a machine of its own: {render_value(label)} is the same one"
            yield Finding((*place, "address"), found, expected)
