"""Heartbeats by way of a ping address: which packets hold one, and which paths there are; without a network."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.ha.echo_path import IDENTITY, EchoPath, make_paths
from lbfast.ha.ping import render_echo

HEADER = bytes([0x45]) + bytes(19)
BEAT = b"a heartbeat"


def path_of(version: int) -> EchoPath:
    return EchoPath("192.0.2.1", "192.0.2.2", via="192.0.2.254" if version == 4 else "2001:db8::fe")


@given(st.binary(max_size=600), st.integers(0, 0xFFFF))
def test_the_checksum_is_right_for_any_data(data: bytes, sequence: int) -> None:
    """RFC 1071: over the whole message, the checksum included, the sum is all ones."""
    message = render_echo(8, IDENTITY, sequence, data)
    assert message[8:] == data
    padded = message + bytes(len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@pytest.mark.parametrize(
    ("packet", "version", "data"),
    [
        (HEADER + render_echo(0, IDENTITY, 1, BEAT), 4, BEAT),
        (bytes([0x46]) + bytes(23) + render_echo(0, IDENTITY, 1, BEAT), 4, BEAT),  # a header with options
        (HEADER + render_echo(0, IDENTITY + 1, 1, BEAT), 4, None),  # of a ping
        (HEADER + render_echo(8, IDENTITY, 1, BEAT), 4, None),  # a request
        (HEADER + render_echo(0, IDENTITY, 1), 4, None),
        (HEADER + b"\0", 4, None),
        (b"", 4, None),
        (render_echo(129, IDENTITY, 1, BEAT), 6, BEAT),
        (render_echo(128, IDENTITY, 1, BEAT), 6, None),
        (render_echo(129, IDENTITY + 1, 1, BEAT), 6, None),
        (b"", 6, None),
    ],
)
def test_which_packets_hold_a_heartbeat(packet: bytes, version: int, data: bytes | None) -> None:
    assert path_of(version).unwrap(packet) == data


@given(st.binary(max_size=100), st.sampled_from([4, 6]))
def test_any_packet_can_be_read(packet: bytes, version: int) -> None:
    found = path_of(version).unwrap(packet)
    assert found is None or packet.endswith(found)


def test_paths_by_way_of_nodes_that_an_address_could_speak_to() -> None:
    ways = (("10.0.0.1", "10.0.0.2"), ("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2"))
    found = make_paths(ways, ["10.0.0.254", "fd00::fe"])
    assert [(path.local, path.peer, path.via) for path in found] == [
        *((local, peer, "") for local, peer in ways),
        ("10.0.0.1", "10.0.0.2", "10.0.0.254"),
        ("fd00::1", "fd00::2", "fd00::fe"),
    ]
    assert [path.ways for path in found if isinstance(path, EchoPath)] == [ways[:2], ways[2:]]
    assert {path.key for path in found}.isdisjoint(path.key for path in make_paths(ways[:1], ["10.0.0.254"])[1:])
    assert len({path.key for path in found}) == len(found)
    assert [path.via for path in make_paths(ways[:1], ["fd00::fe"])] == [""], "no address of ours could speak to it"
