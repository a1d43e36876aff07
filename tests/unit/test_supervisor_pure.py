"""Back-off, timers, limits, ARP frames and the plan of addresses: no effects, every edge."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from lbfast.config.layout import Layout
from lbfast.config.store import parse
from lbfast.supervisor.address_plan import Placement, WantedAddress, plan_addresses
from lbfast.supervisor.arp import is_conflict, parse_arp, render_announcement, render_probe
from lbfast.supervisor.backoff import Backoff
from lbfast.supervisor.faults import Fault
from lbfast.supervisor.ha_body import make_plan
from lbfast.supervisor.limits import MOST_PIPES, plan_limits
from lbfast.supervisor.netlink import IFF_LOOPBACK, IFF_UP, IPAddress, Link, LinkAddress
from lbfast.supervisor.timers import Timers

LO = Link(1, "lo", IFF_UP | IFF_LOOPBACK, bytes(6))
ETH0 = Link(2, "eth0", IFF_UP, bytes.fromhex("020000000001"))
ETH1 = Link(3, "eth1", 0, bytes.fromhex("020000000002"))
HERE = [
    LinkAddress(1, ip_address("127.0.0.1"), 8, 0),
    LinkAddress(2, ip_address("192.168.85.10"), 24, 0),
    LinkAddress(2, ip_address("192.168.85.11"), 32, 0),
    LinkAddress(2, ip_address("2001:db8::10"), 64, 0),
    LinkAddress(2, ip_address("fe80::1"), 64, 0),
    LinkAddress(3, ip_address("10.0.0.1"), 8, 0),
]


def plan(address: str, interface: str | None = None) -> tuple[list[Placement], list[Fault]]:
    local = {one.address for one in HERE}

    def is_local(asked: IPAddress) -> bool:
        return asked in local

    return plan_addresses([WantedAddress(4, ip_address(address), interface)], [LO, ETH0, ETH1], HERE, is_local)


@pytest.mark.parametrize("address", ["192.168.85.10", "127.0.0.1", "0.0.0.0", "::", "2001:db8::10"])
def test_address_of_this_machine_is_left_alone(address: str) -> None:
    assert plan(address) == ([], [])


@pytest.mark.parametrize(("address", "prefix"), [("192.168.85.150", 32), ("2001:db8::150", 128)])
def test_address_in_a_subnet_is_raised_there(address: str, prefix: int) -> None:
    placements, faults = plan(address)
    assert faults == []
    assert placements == [Placement(ETH0, ip_address(address), 4)]
    assert placements[0].prefix == prefix


def test_named_interface_wins_over_the_subnet() -> None:
    assert plan("172.16.0.1", "eth0")[0] == [Placement(ETH0, ip_address("172.16.0.1"), 4)]


@pytest.mark.parametrize(
    ("address", "interface", "key", "said"),
    [
        ("172.16.0.1", None, "address", "eth0 192.168.85.0/24, eth0 2001:db8::/64"),
        ("fe80::2", None, "address", "neither on this machine"),
        ("172.16.0.1", "eth7", "interface", '"lo", "eth0", "eth1"'),
        ("192.168.85.10", "eth7", "interface", '"lo", "eth0", "eth1"'),  # although it is here already
        ("10.0.0.9", None, "address", "eth1 is down"),
        ("172.16.0.1", "eth1", "interface", "ip link set eth1 up"),
        ("192.168.85.255", None, "address", "broadcast"),
        ("192.168.85.0", None, "address", "network address"),
    ],
)
def test_address_that_cannot_be_raised(address: str, interface: str | None, key: str, said: str) -> None:
    placements, faults = plan(address, interface)
    assert placements == []
    assert [(fault.service, fault.key) for fault in faults] == [(4, key)]
    assert said in f"{faults[0].found} {faults[0].expected}"


def test_two_services_share_an_address() -> None:
    address = ip_address("192.168.85.150")
    wanted = [WantedAddress(0, address, None), WantedAddress(1, address, None)]
    placements, faults = plan_addresses(wanted, [LO, ETH0], HERE, lambda _: False)
    assert (placements, faults) == ([Placement(ETH0, address, 0)], [])


def test_arp_probe_claims_nothing() -> None:
    packet = parse_arp(render_probe(ETH0.mac, IPv4Address("192.0.2.1")))
    assert packet is not None
    assert (packet.sender, packet.target) == (IPv4Address("0.0.0.0"), IPv4Address("192.0.2.1"))
    assert packet.sender_mac == ETH0.mac


@pytest.mark.parametrize("reply", [False, True])
def test_arp_announcement_names_itself_twice(reply: bool) -> None:
    frame = render_announcement(ETH0.mac, IPv4Address("192.0.2.1"), reply=reply)
    packet = parse_arp(frame)
    assert packet is not None
    assert packet.sender == packet.target == IPv4Address("192.0.2.1")
    assert frame[:6] == b"\xff" * 6
    assert frame[20:22] == (b"\x00\x02" if reply else b"\x00\x01")


def test_arp_conflicts() -> None:
    mine, other = ETH0.mac, ETH1.mac
    ours, theirs = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")

    def conflict(frame: bytes) -> bool:
        packet = parse_arp(frame)
        assert packet is not None
        return is_conflict(packet, ours, mine)

    assert conflict(render_announcement(other, ours, reply=True))
    assert conflict(render_probe(other, ours)), "two machines that probe at the same time"
    assert not conflict(render_probe(mine, ours))
    assert not conflict(render_announcement(other, theirs, reply=True))


@pytest.mark.parametrize("frame", [b"", b"\xff" * 41, b"\xff" * 60, render_probe(ETH0.mac, IPv4Address(1))[:-1]])
def test_arp_ignores_other_frames(frame: bytes) -> None:
    assert parse_arp(frame) is None


def test_backoff_replaces_at_once_until_the_burst_is_over() -> None:
    backoff = Backoff(burst=3, window=60, first=0.1, longest=1.0)
    assert [backoff.delay(now, was_ready=True) for now in range(8)] == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert backoff.delay(100, was_ready=True) == 0, "forgotten after the window"


def test_backoff_waits_at_once_for_what_never_came_up() -> None:
    backoff = Backoff(burst=3, window=60, first=0.1, longest=10)
    assert [backoff.delay(now, was_ready=False) for now in range(3)] == [0.1, 0.2, 0.4]
    assert Backoff(first=0.1, longest=10)._boot_failures == 0
    assert max(backoff.delay(now, was_ready=False) for now in range(3, 5000)) == 10


def test_timers_run_in_order_and_only_when_due() -> None:
    timers, done = Timers(), list[str]()
    assert timers.timeout(0) is None
    timers.at(2.0, lambda: done.append("late"))
    timers.at(1.0, lambda: done.append("first"))
    timers.at(1.0, lambda: (done.append("second"), timers.at(1.0, lambda: done.append("added")))[0])
    assert timers.timeout(0.25) == 0.75
    timers.run_due(0.5)
    assert done == []
    timers.run_due(1.5)
    assert done == ["first", "second", "added"]
    assert timers.timeout(5) == 0
    timers.run_due(5)
    assert done[-1] == "late"


@pytest.mark.parametrize(
    ("descriptors", "listeners", "wanted", "pipes"),
    [(1_024, 1, 40_000, MOST_PIPES), (20_000, 3, 40_000, MOST_PIPES), (1 << 20, 3, 40_000, 128), (4_096, 1_000, 10, 0)],
)
def test_limits_fit_into_the_descriptors(descriptors: int, listeners: int, wanted: int, pipes: int) -> None:
    limits = plan_limits(descriptors, listeners, 2, wanted, pipes)
    assert limits.connections <= max(16, wanted)
    assert limits.pipes <= pipes
    assert 2 * limits.connections + 2 * limits.pipes + listeners + 64 <= descriptors


def test_boxes_that_differ_in_what_is_their_own_have_the_same_configuration() -> None:
    def digest(text: str) -> str:
        return make_plan(parse(text + "virtual_service = []\n", "lb.toml").config, Layout({}, {}, ()), 1).digest

    plain = digest("")
    assert digest('workers = 3\nlog = { target = "none" }\ngraphs = { keep_10s = "1d" }\n') == plain
    assert digest('alerts = { webhook = "https://chat.example/hook" }\n') != plain
