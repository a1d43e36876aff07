"""Services that cannot live beside each other: labels, identities, addresses and ports, loops."""

from __future__ import annotations

import pytest

from lbfast.config.errors import ConfigError
from lbfast.config.store import parse


def service(label: str, address: str, ports: str, *reals: str, extra: str = "") -> str:
    """``reals`` as "label address [port]"."""
    text = f'[[virtual_service]]\nlabel = "{label}"\naddress = "{address}"\nports = "{ports}"\n{extra}'
    for real in reals:
        name, rip, *port = real.split()
        text += f'[[virtual_service.real_server]]\nlabel = "{name}"\naddress = "{rip}"\n'
        text += f"port = {port[0]}\n" if port else ""
    return text


def told(*services: str) -> list[tuple[str, str, str]]:
    """(key, found, expected) of every problem; none when the file is good."""
    try:
        parse("".join(services))
    except ConfigError as error:
        return [(problem.key, problem.found, problem.expected) for problem in error.problems]
    return []


def test_duplicate_labels() -> None:
    services = told(service("A", "192.0.2.1", "443"), service("A", "192.0.2.2", "443"))
    assert services == [
        ('virtual_service[1] "A" . label', '"A"', "a label of its own: virtual_service[0] has this one")
    ]
    reals = told(service("A", "192.0.2.1", "443", "x 192.0.2.11", "x 192.0.2.12"))
    assert [key for key, _, _ in reals] == ['virtual_service[0] "A" . real_server[1] "x" . label']


def test_one_label_in_two_services_is_two_servers() -> None:
    assert not told(service("A", "192.0.2.1", "1", "x 192.0.2.11"), service("B", "192.0.2.1", "2", "x 192.0.2.11"))


def test_duplicate_identities() -> None:
    identity = 'id = "0b5e4f0a-6a3c-4c0e-9d55-0d2f6a1f7c11"\n'
    found = told(service("A", "192.0.2.1", "1", extra=identity), service("B", "192.0.2.1", "2", extra=identity))
    assert [(key, "a second time" in what) for key, what, _ in found] == [('virtual_service[1] "B" . id', True)]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (("192.0.2.1", "443"), ("192.0.2.1", "443"), 443),
        (("192.0.2.1", "443"), ("192.0.2.1", "80,400-500"), 443),
        (("192.0.2.1", "8000-8010"), ("192.0.2.1", "8010-8020"), 8010),
        (("192.0.2.1", "8000-8009"), ("192.0.2.1", "8010-8020"), None),
        (("192.0.2.1", "443"), ("192.0.2.2", "443"), None),
        (("0.0.0.0", "443"), ("192.0.2.1", "443"), 443),
        (("192.0.2.1", "443"), ("0.0.0.0", "443"), 443),
        (("0.0.0.0", "443"), ("0.0.0.0", "443"), 443),
        (("::", "443"), ("2001:db8::1", "443"), 443),
        (("::", "443"), ("192.0.2.1", "443"), None),
        (("::", "443"), ("0.0.0.0", "443"), None),
        (("2001:db8::1", "443"), ("2001:DB8:0::1", "443"), 443),
    ],
)
def test_two_services_on_one_address_and_port(
    first: tuple[str, str], second: tuple[str, str], clash: int | None
) -> None:
    found = told(service("A", *first), service("B", *second))
    assert len(found) == (clash is not None)
    for key, _, expected in found:
        assert key.endswith(" . ports")
        assert f"has port {clash} there" in expected


@pytest.mark.parametrize(
    ("services", "key", "found"),
    [
        ([service("A", "192.0.2.1", "443", "x 192.0.2.1")], 0, "192.0.2.1:443"),
        ([service("A", "192.0.2.1", "443", "x 192.0.2.1 443")], 0, "192.0.2.1:443"),
        ([service("A", "192.0.2.1", "443", "x 192.0.2.1 8443")], None, ""),
        ([service("A", "192.0.2.1", "443", "x 192.0.2.2"), service("B", "192.0.2.2", "443")], 0, "192.0.2.2:443"),
        ([service("A", "192.0.2.1", "443", "x 192.0.2.2 80"), service("B", "192.0.2.2", "443")], None, ""),
        ([service("A", "2001:db8::1", "443", "x 2001:db8:0::1")], 0, "[2001:db8::1]:443"),
        ([service("A", "0.0.0.0", "443", "x 127.0.0.1")], 0, "127.0.0.1:443"),
        ([service("A", "0.0.0.0", "443", "x 192.0.2.11")], None, ""),
        ([service("A", "0.0.0.0", "80", "x 192.0.2.9 80"), service("B", "192.0.2.9", "443")], 0, "192.0.2.9:80"),
        ([service("A", "127.0.0.1", "8443", "x 127.0.0.1 9001", "y 127.0.0.1 9002")], None, ""),
    ],
)
def test_a_service_is_never_its_own_real_server(services: list[str], key: int | None, found: str) -> None:
    problems = told(*services)
    assert len(problems) == (key is not None)
    for name, what, expected in problems:
        assert name == f'virtual_service[{key}] "A" . real_server[0] "x" . address'
        assert what == found
        assert "listens there" in expected


def test_a_fallback_server_that_is_the_service_itself() -> None:
    loop = 'fallback_server = { address = "192.0.2.1" }\n'
    found = told(service("A", "192.0.2.1", "443", extra=loop))
    assert [key for key, _, _ in found] == ['virtual_service[0] "A" . fallback_server . address']


def test_more_ports_than_a_process_can_listen_on() -> None:
    found = told(service("A", "192.0.2.1", "1-65535"))
    assert found == [
        ("virtual_service", "65535 pairs of address and port in all", "at most 16384 pairs of address and port")
    ]
