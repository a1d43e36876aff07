"""Service addresses on real interfaces: raised, announced, refused as duplicates, dropped, cleaned up after a crash."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

import pytest
from namespaces import inside, ip, joined_pair
from waiting import scaled

from lbfast.supervisor.address_plan import WantedAddress
from lbfast.supervisor.addresses import AddressFaults, ServiceAddresses
from lbfast.supervisor.arp import ArpPacket, parse_arp
from lbfast.supervisor.netlink import Netlink

pytestmark = pytest.mark.root

OURS, THEIRS = f"lbf-a-{os.getpid()}", f"lbf-b-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def _network() -> Iterator[None]:
    with joined_pair(OURS, THEIRS):
        yield


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[ServiceAddresses]:
    kept = ServiceAddresses(tmp_path / "addresses.json")
    yield kept
    with inside(OURS):
        assert kept.drop_all() == []
    assert shown() == {"192.0.2.1/24", "2001:db8::1/64"}, "the machine must be as it was"


def want(*texts: str, interface: str | None = None) -> list[WantedAddress]:
    return [WantedAddress(number, ip_address(text), interface) for number, text in enumerate(texts)]


def shown(name: str = OURS) -> set[str]:
    """Global addresses of eth0, as the ``ip`` program sees them."""
    links = json.loads(ip("-n", name, "-j", "address", "show", "dev", "eth0", "scope", "global"))
    return {f"{one['local']}/{one['prefixlen']}" for one in links[0]["addr_info"] if one}


def mac_of(name: str) -> str:
    return str(json.loads(ip("-n", name, "-j", "link", "show", "dev", "eth0"))[0]["address"])


def test_raised_announced_and_dropped(addresses: ServiceAddresses) -> None:
    with inside(THEIRS):
        neighbour = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    with neighbour:
        neighbour.settimeout(scaled(5))
        with inside(OURS):
            addresses.raise_all(want("192.0.2.150"))
        assert shown() == {"192.0.2.1/24", "192.0.2.150/32", "2001:db8::1/64"}
        heard = hear(neighbour, lambda packet: packet.sender == ip_address("192.0.2.150"))
    assert heard.sender_mac.hex(":") == mac_of(OURS)
    with inside(OURS), socket.socket() as sock:
        sock.bind(("192.0.2.150", 0))
    with inside(OURS):
        assert addresses.drop_all() == []
    assert shown() == {"192.0.2.1/24", "2001:db8::1/64"}


def hear(sock: socket.socket, is_it: Callable[[ArpPacket], bool]) -> ArpPacket:
    deadline = time.monotonic() + scaled(5)
    while time.monotonic() < deadline:
        packet = parse_arp(sock.recv(2048))
        if packet is not None and is_it(packet):
            return packet
    raise AssertionError("no such ARP packet")


def test_ipv6_is_raised_and_advertised(addresses: ServiceAddresses) -> None:
    with inside(THEIRS):
        neighbour = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
        group = socket.inet_pton(socket.AF_INET6, "ff02::1") + index.to_bytes(4, "little")
        neighbour.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    with neighbour:
        neighbour.settimeout(scaled(5))
        with inside(OURS):
            addresses.raise_all(want("2001:db8::150"))
            with socket.socket(socket.AF_INET6) as sock:
                sock.bind(("2001:db8::150", 0))  # refused while the address is tentative
        target = ip_address("2001:db8::150").packed
        while True:
            packet = neighbour.recv(2048)
            if packet[0] == 136 and packet[8:24] == target:
                break
    assert packet[4] & 0x20, "it must override what neighbours remember"
    assert packet[26:32].hex(":") == mac_of(OURS)


def test_address_of_another_machine_is_refused_with_its_mac(addresses: ServiceAddresses) -> None:
    with inside(OURS), pytest.raises(AddressFaults) as refused:
        addresses.raise_all(want("192.0.2.151", "192.0.2.2"))
    assert [fault.service for fault in refused.value.faults] == [1]
    assert mac_of(THEIRS) in refused.value.faults[0].found
    assert "192.0.2.151/32" not in shown(), "all or nothing"


def test_ipv6_address_of_another_machine_is_refused(addresses: ServiceAddresses) -> None:
    with inside(OURS), pytest.raises(AddressFaults, match="another machine on eth0 has already"):
        addresses.raise_all(want("192.0.2.152", "2001:db8::2"))
    assert shown() == {"192.0.2.1/24", "2001:db8::1/64"}, "all or nothing"


def test_address_that_is_here_already_is_left_alone(addresses: ServiceAddresses) -> None:
    with inside(OURS):
        addresses.raise_all(want("192.0.2.1", "127.0.0.9", "0.0.0.0"))
        assert addresses.raised == ()
        addresses.drop_all()
    assert "192.0.2.1/24" in shown()


def test_named_interface_carries_an_address_of_no_subnet(addresses: ServiceAddresses) -> None:
    with inside(OURS):
        addresses.raise_all(want("198.51.100.7", interface="eth0"))
    assert "198.51.100.7/32" in shown()


def test_next_start_adopts_what_is_wanted_and_drops_the_rest(tmp_path: Path, addresses: ServiceAddresses) -> None:
    crashed = ServiceAddresses(tmp_path / "addresses.json")
    with inside(OURS):
        crashed.raise_all(want("192.0.2.160", "192.0.2.161", "2001:db8::160"))
        addresses.raise_all(want("192.0.2.161", "2001:db8::160"))
    assert set(map(str, addresses.raised)) == {"192.0.2.161", "2001:db8::160"}
    assert shown() == {"192.0.2.1/24", "192.0.2.161/32", "2001:db8::1/64", "2001:db8::160/128"}


def test_record_of_an_earlier_boot_is_not_believed(tmp_path: Path, addresses: ServiceAddresses) -> None:
    record = tmp_path / "addresses.json"
    record.write_text(json.dumps({"boot": "another", "addresses": [["eth0", "192.0.2.1", 24]]}))
    with inside(OURS):
        addresses.raise_all([])
    assert "192.0.2.1/24" in shown()


def test_without_the_right_the_error_says_so() -> None:
    read, write = os.pipe()
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, 65534, 65534)
        pid = os.fork()
        if pid == 0:
            _raise_as_nobody(Path(directory), write)
        os.close(write)
        with open(read) as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
    assert "without the right" in said
    assert "CAP_NET_ADMIN" in said


def _raise_as_nobody(directory: Path, write: int) -> NoReturn:
    """In a child: try without privileges and write what came of it."""
    said = "raised"
    try:
        inside(OURS).__enter__()  # never left: without privileges there is no way back
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        ServiceAddresses(directory / "addresses.json").raise_all(want("192.0.2.170"))
    except AddressFaults as refused:
        said = f"{refused.faults[0].found} / {refused.faults[0].expected}"
    except OSError as error:
        said = repr(error)
    finally:
        os.write(write, said.encode())
        os._exit(0)


def test_netlink_sees_what_ip_sees() -> None:
    with inside(OURS), Netlink() as netlink:
        links = {link.name: link for link in netlink.links()}
        assert links["eth0"].mac.hex(":") == mac_of(OURS)
        assert [netlink.is_local(ip_address(text)) for text in ("192.0.2.1", "192.0.2.2", "127.9.9.9")] == [
            True,
            False,
            True,
        ]


def test_more_addresses_come_and_go_beside_the_others(addresses: ServiceAddresses) -> None:
    with inside(OURS):
        addresses.raise_all(want("192.0.2.150"))
        assert addresses.raise_more(want("192.0.2.150", "192.0.2.151")) == [ip_address("192.0.2.151")]
        assert shown() == {"192.0.2.1/24", "192.0.2.150/32", "192.0.2.151/32", "2001:db8::1/64"}
        with pytest.raises(AddressFaults, match=r"192\.0\.2\.2"):
            addresses.raise_more([*want("192.0.2.152"), *want("192.0.2.2")])
        assert addresses.drop([ip_address("192.0.2.150")]) == []
        assert shown() == {"192.0.2.1/24", "192.0.2.151/32", "2001:db8::1/64"}
        assert addresses.raised == (ip_address("192.0.2.151"),)


def test_an_address_added_later_is_dropped_after_a_crash(tmp_path: Path) -> None:
    record = tmp_path / "addresses.json"
    with inside(OURS):
        crashed = ServiceAddresses(record)
        crashed.raise_all(want("192.0.2.150"))
        crashed.raise_more(want("192.0.2.151"))
        again = ServiceAddresses(record)
        again.raise_all(want("192.0.2.151"))
        assert shown() == {"192.0.2.1/24", "192.0.2.151/32", "2001:db8::1/64"}
        assert again.drop_all() == []
    assert shown() == {"192.0.2.1/24", "2001:db8::1/64"}
