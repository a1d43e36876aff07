"""Questions to the LAN: who has an address answers, who wants the same one is heard, and nobody hears itself."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

import pytest
from harness import wait_for
from namespaces import inside, ip, joined_pair

from lbfast.supervisor.neighbours import NeighbourProbe, parse_solicitation, render_solicitation, solicited_group
from lbfast.supervisor.netlink import IPAddress, Netlink

pytestmark = pytest.mark.root

OURS, THEIRS = f"lbf-na-{os.getpid()}", f"lbf-nb-{os.getpid()}"
WANTED = ("192.0.2.50", "2001:db8::50")


@pytest.fixture(scope="module", autouse=True)
def _network() -> Iterator[None]:
    with joined_pair(OURS, THEIRS):
        for name in (OURS, THEIRS):
            wait_for(lambda name=name: is_ready(name), 20, "the kernel to have its own addresses there")
        yield


def is_ready(name: str) -> bool:
    shown = ip("-n", name, "-6", "address", "show", "dev", "eth0")
    return "fe80::" in shown and "tentative" not in shown


def probe(name: str, *texts: str) -> NeighbourProbe:
    addresses: list[IPAddress] = [ip_address(text) for text in texts]
    with inside(name), Netlink() as netlink:
        link = next(link for link in netlink.links() if link.name == "eth0")
        return NeighbourProbe({link: addresses})


def mac_of(name: str) -> str:
    return str(json.loads(ip("-n", name, "-j", "link", "show", "dev", "eth0"))[0]["address"])


def learned(asker: NeighbourProbe, *askers: NeighbourProbe) -> tuple[dict[IPAddress, bytes], set[IPAddress]]:
    """What one of them learns in a round of all of them that a holder of the second address answers for, too."""
    taken: dict[IPAddress, bytes] = {}
    asked: set[IPAddress] = set()

    def answered() -> bool:
        for one in (asker, *askers):
            one.send()
        more_taken, more_asked = asker.read()
        taken.update(more_taken)
        asked.update(more_asked)
        return len(taken) == 2

    wait_for(answered, 10, "the holder's answers")
    return taken, asked


@pytest.mark.parametrize("wanted", WANTED)
def test_two_that_ask_at_the_same_time_hear_each_other(wanted: str) -> None:
    ours, theirs = probe(OURS, wanted), probe(THEIRS, wanted)
    try:
        for asker, hearer in ((ours, theirs), (theirs, ours)):
            asker.send()
            heard: set[IPAddress] = set()
            wait_for(lambda hearer=hearer, heard=heard: heard.update(hearer.read()[1]) or heard, 10, "the question")
            assert heard == {ip_address(wanted)}
    finally:
        ours.close()
        theirs.close()


def test_whoever_has_an_address_answers_and_nobody_hears_itself() -> None:
    ours = probe(OURS, "192.0.2.2", "2001:db8::2", *WANTED)
    try:
        taken, asked = learned(ours)
        theirs = bytes.fromhex(mac_of(THEIRS).replace(":", ""))
        assert taken == dict.fromkeys((ip_address("192.0.2.2"), ip_address("2001:db8::2")), theirs)
        assert asked == set()
    finally:
        ours.close()


def test_who_asks_from_an_address_does_not_want_the_one_it_asks_for() -> None:
    """A client that looks for the address is no reason to make way."""
    ours = probe(OURS, "2001:db8::2", "192.0.2.2", "2001:db8::50")
    with inside(THEIRS):
        client = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    try:
        with client:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            address = IPv6Address("2001:db8::50")
            body = render_solicitation(address, bytes(6))[40:]
            client.sendto(body, (str(solicited_group(address)), 0, 0, index))
        assert learned(ours)[1] == set()
    finally:
        ours.close()


def test_what_a_router_has_passed_on_is_no_neighbours_word() -> None:
    """RFC 4861, 7.1.2: only who sends from the link itself can have a hop limit of 255."""
    far, near = "2001:db8::50", "2001:db8::51"
    ours = probe(OURS, far, near)
    with inside(THEIRS):
        client = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    try:
        with client:
            for address, hops in ((far, 254), (near, 255)):
                client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
                body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + IPv6Address(address).packed
                client.sendto(body, ("ff02::1", 0, 0, index))
        taken: dict[IPAddress, bytes] = {}
        wait_for(lambda: taken.update(ours.read()[0]) or taken, 10, "the neighbour's word")
        assert taken == {ip_address(near): b""}
    finally:
        ours.close()


def test_hundreds_of_addresses_are_asked_for() -> None:
    """More groups than the kernel lets one socket join."""
    wanted = [f"2001:db8::1:{number:x}" for number in range(1, 1000)]
    ours, theirs = probe(OURS, *wanted), probe(THEIRS, *wanted)
    try:
        theirs.send()
        wait_for(lambda: ours.read()[1], 10, "a question")
    finally:
        ours.close()
        theirs.close()


@pytest.mark.parametrize("data", [b"", bytes([135]), bytes([135]) + bytes(22), bytes([136]) + bytes(30)])
def test_what_is_no_solicitation(data: bytes) -> None:
    assert parse_solicitation(data) is None


@pytest.mark.parametrize(
    ("options", "nonce"),
    [
        (b"", b""),
        (b"\x01\x01abcdef\x0e\x01123456", b"123456"),
        (b"\x0e\x00123456", b""),  # a length of nothing ends the options
        (b"\x0e\x01123", b"123"),
        (b"\x0e", b""),
    ],
)
def test_the_nonce_of_a_solicitation(options: bytes, nonce: bytes) -> None:
    target = IPv6Address("2001:db8::50")
    found = parse_solicitation(bytes([135]) + bytes(7) + target.packed + options)
    assert found is not None
    assert (found.target, found.nonce) == (target, nonce)
