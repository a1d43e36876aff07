"""Keys that contradict each other inside one virtual service or table.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lbfast.config.errors import KeyPath, render_value
from lbfast.model.addresses import is_ipv6
from lbfast.model.appliance import LogSettings
from lbfast.model.health_check import SPECIFIC_KEYS, TYPE_KEYS
from lbfast.model.service import FallbackServer, RealServer, VirtualService
from lbfast.model.state import AtLimit


@dataclass(frozen=True)
class Finding:
    """Something wrong or doubtful, not yet tied to a line."""

    path: KeyPath
    found: str
    expected: str


def server_paths(path: KeyPath, service: VirtualService) -> Iterator[tuple[KeyPath, RealServer | FallbackServer]]:
    """Every server that connections may go to, with its place in the file."""
    for place, real in enumerate(service.real_servers):
        yield (*path, "real_server", place), real
    if service.fallback_server is not None:
        yield (*path, "fallback_server"), service.fallback_server


def servers_of(service: VirtualService) -> list[RealServer | FallbackServer]:
    return [server for _, server in server_paths((), service)]


def check_log(log: LogSettings) -> Iterator[Finding]:
    if log.target == "file" and log.file is None:
        yield Finding(("log", "file"), "nothing", 'the file to write to, because target is "file"')
    if log.target != "file" and log.file is not None:
        yield Finding(("log", "file"), render_value(log.file), f'no file, because target is "{log.target}"')


def check_service(path: KeyPath, service: VirtualService) -> Iterator[Finding]:
    """Contradictions inside one virtual service."""
    if service.drain_cut and service.drain_deadline is None:
        yield Finding((*path, "drain_cut"), "true without drain_deadline", "a drain_deadline at which to cut")
    if service.at_limit is AtLimit.FALLBACK and service.fallback_server is None:
        yield Finding((*path, "at_limit"), '"fallback" without fallback_server', "a fallback_server to send them to")
    if service.client_limit_report_only and not service.client_max_connections:
        expected = "a client_max_connections above 0 to report on"
        yield Finding((*path, "client_limit_report_only"), "true without client_max_connections", expected)
    yield from _check_sources(path, service)
    yield from _check_health(path, service)


def _check_sources(path: KeyPath, service: VirtualService) -> Iterator[Finding]:
    families = {is_ipv6(server.address) for server in servers_of(service)}
    if service.source_address == "vip":
        yield from _check_source_vip(path, service, families)
        return
    for index, address in enumerate(service.source_addresses):
        if families and is_ipv6(address) not in families:
            other = "IPv4" if is_ipv6(address) else "IPv6"
            expected = f"an {other} address, because every real server here has one"
            yield Finding((*path, "source_addresses", index), render_value(address), expected)


def _check_source_vip(path: KeyPath, service: VirtualService, families: set[bool]) -> Iterator[Finding]:
    path, found = (*path, "source_address"), '"vip"'
    if service.source_addresses:
        yield Finding(path, f"{found} beside source_addresses", "one of the two")
    if str(service.address) in ("0.0.0.0", "::"):
        yield Finding(path, f"{found} with address {service.address}", "a single service address to connect from")
    elif families and families != {is_ipv6(service.address)}:
        other = "IPv6" if is_ipv6(service.address) else "IPv4"
        yield Finding(path, f"{found} with real servers of the other family", f"{other} addresses of the real servers")


def _check_health(path: KeyPath, service: VirtualService) -> Iterator[Finding]:
    check = service.health_check
    path = (*path, "health_check")
    for key in sorted(check.model_fields_set & SPECIFIC_KEYS - TYPE_KEYS[check.type]):
        if getattr(check, key) is not None:
            kinds = " or ".join(kind for kind, keys in TYPE_KEYS.items() if key in keys)
            expected = f"no {key}, which says something only for type {kinds}"
            yield Finding((*path, key), f'{key} with type "{check.type}"', expected)
    if check.type == "external" and check.script is None:
        yield Finding((*path, "script"), "nothing", 'the program to run, because type is "external"')
    if check.method == "HEAD":
        for key in ("expected_text", "expected_regex"):
            if getattr(check, key) is not None:
                expected = 'method "GET": the answer to HEAD has no body to look into'
                yield Finding((*path, key), f'{key} with method "HEAD"', expected)
    families = {is_ipv6(server.address) for server in servers_of(service)}
    if check.source_address and families and is_ipv6(check.source_address) not in families:
        expected = "an address of the family of the real servers"
        yield Finding((*path, "source_address"), render_value(check.source_address), expected)
    if check.flap_hold > check.flap_max_hold:
        yield Finding((*path, "flap_hold"), "more than flap_max_hold", "at most flap_max_hold")


def check_script(path: KeyPath, service: VirtualService, is_executable: Callable[[str], bool]) -> Iterator[Finding]:
    """A script that cannot be run would take every server of the service down."""
    check = service.health_check
    if check.type == "external" and check.script is not None and not is_executable(check.script):
        expected = "a program that exists and may be executed"
        yield Finding((*path, "health_check", "script"), render_value(check.script), expected)
