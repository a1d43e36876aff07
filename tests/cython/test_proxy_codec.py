"""The PROXY protocol codec: grammar, bounds, growth byte by byte, an independent decoder, hostile bytes."""

from __future__ import annotations

import ipaddress
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfast import _proxy

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
CORPUS = Path(__file__).parent / "corpus" / "proxy"
NOBODY = (0, None, 0, None, 0)


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("!BH", kind, len(value) if length is None else length) + value


INET = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 50000, 443)
INET6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::2").packed + b"\x00\x01\xff\xff"
INET_PARSED = (4, "192.0.2.1", 50000, "198.51.100.2", 443)
INET6_PARSED = (6, "2001:db8::1", 1, "2001:db8::2", 65535)

VALID: dict[str, tuple[bytes, tuple[object, ...]]] = {
    "v1_tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 443\r\n", INET_PARSED),
    "v1_tcp6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", INET6_PARSED),
    "v1_zero": (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", (4, "0.0.0.0", 0, "255.255.255.255", 65535)),
    "v1_mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", (6, "192.0.2.1", 1, "::1", 2)),
    "v1_longest": (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        (6, ":".join(["ffff"] * 8), 65535, ":".join(["ffff"] * 8), 65535),
    ),
    "v1_unknown": (b"PROXY UNKNOWN\r\n", NOBODY),
    "v1_unknown_107": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOBODY),
    "v2_inet": (v2(0x21, 0x11, INET), INET_PARSED),
    "v2_inet6": (v2(0x21, 0x21, INET6), INET6_PARSED),
    "v2_tlv": (v2(0x21, 0x11, INET + tlv(4, b"") + tlv(5, b"unique") + tlv(0xEA, b"x" * 300)), INET_PARSED),
    "v2_local": (v2(0x20, 0x00, b""), NOBODY),
    "v2_local_rest": (v2(0x20, 0xFF, b"whatever"), NOBODY),
    "v2_unspec": (v2(0x21, 0x00, b"not to be read"), NOBODY),
    "v2_datagram": (v2(0x21, 0x12, INET), NOBODY),
    "v2_unix": (v2(0x21, 0x31, bytes(216) + tlv(4, b"")), NOBODY),
    "v2_longest": (v2(0x21, 0x11, INET + tlv(4, b"\0" * (4096 - 16 - 12 - 3))), INET_PARSED),
}

MALFORMED: dict[str, bytes] = {
    "v1_word": b"GET / HTTP/1.1\r\n",
    "v1_lower": b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1_tab": b"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1_family": b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1_udp": b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1_unknown_glued": b"PROXY UNKNOWNX\r\n",
    "v1_unknown_cr": b"PROXY UNKNOWN a\rb\r\n",
    "v1_no_cr": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
    "v1_only_lf": b"PROXY \n",
    "v1_two_spaces": b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
    "v1_trailing_space": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
    "v1_leading_zero": b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
    "v1_256": b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
    "v1_short_address": b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    "v1_long_address": b"PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n",
    "v1_v6_in_tcp4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "v1_v4_in_tcp6": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1_scope": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "v1_nul": b"PROXY TCP6 ::1\0x ::1 1 2\r\n",
    "v1_port_zero_prefix": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
    "v1_port_65536": b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
    "v1_port_huge": b"PROXY TCP4 1.2.3.4 1.2.3.4 99999999999999999999 2\r\n",
    "v1_port_sign": b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
    "v1_port_missing": b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    "v1_port_empty": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
    "v1_108": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1_endless": b"PROXY UNKNOWN " + b"x" * 500,
    "v2_signature": SIGNATURE[:-1] + b"X" + bytes(20),
    "v2_version_1": v2(0x11, 0x11, INET),
    "v2_version_3": v2(0x31, 0x11, INET),
    "v2_command": v2(0x22, 0x11, INET),
    "v2_family": v2(0x21, 0x41, INET),
    "v2_transport": v2(0x21, 0x13, INET),
    "v2_inet_short": v2(0x21, 0x11, INET[:-1]),
    "v2_inet6_short": v2(0x21, 0x21, INET6[:-1]),
    "v2_inet_as_inet6": v2(0x21, 0x21, INET),
    "v2_unix_short": v2(0x21, 0x31, bytes(215)),
    "v2_tlv_head": v2(0x21, 0x11, INET + b"\x04\x00"),
    "v2_tlv_overrun": v2(0x21, 0x11, INET + tlv(4, b"abc", 4)),
    "v2_tlv_overrun_far": v2(0x21, 0x11, INET + tlv(4, b"", 65535)),
    "v2_second_tlv_overrun": v2(0x21, 0x21, INET6 + tlv(4, b"ok") + tlv(5, b"x", 2)),
    "v2_too_long": v2(0x21, 0x11, b"", 4081),
    "v2_far_too_long": v2(0x20, 0x00, b"", 65535),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_at_every_split_and_growth(name: str) -> None:
    header, want = VALID[name]
    for size in range(len(header)):
        assert _proxy.parse(header[:size]) is None, size
    for rest in (b"", b"\x16\x03\x01", b"\r\n", b"PROXY ", bytes(5000)):
        assert _proxy.parse(header + rest) == (len(header), *want)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_at_every_growth(name: str) -> None:
    """Once refused it stays refused whatever follows, and no prefix is ever accepted."""
    header = MALFORMED[name]
    refused = False
    for size in range(len(header) + 1):
        try:
            assert _proxy.parse(header[:size]) is None
            assert not refused
        except ValueError:
            refused = True
    assert refused
    with pytest.raises(ValueError):
        _proxy.parse(header + b"more")


def test_too_long_is_said_as_soon_as_it_is_known() -> None:
    with pytest.raises(ValueError, match="4097 bytes, at most 4096"):
        _proxy.parse(MALFORMED["v2_too_long"][:16])


def test_refused_at_the_first_wrong_byte() -> None:
    for good in (b"PROXY ", SIGNATURE):
        for i in range(len(good)):
            wrong = bytearray(good[: i + 1])
            wrong[i] ^= 1
            with pytest.raises(ValueError, match="not a PROXY header"):
                _proxy.parse(bytes(wrong))


def test_length_lies() -> None:
    """Every announced length: exactly that many bytes belong to the header, or it is refused."""
    body = INET + tlv(4, bytes(40))
    for length in range(len(body) + 20):
        data = v2(0x21, 0x11, body, length)
        if length in (12, len(body)):
            assert _proxy.parse(data) == (16 + length, *INET_PARSED)
        elif length > len(body):
            assert _proxy.parse(data) is None
        else:
            with pytest.raises(ValueError):
                _proxy.parse(data)


addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
ports = st.integers(0, 65535)


@given(source=addresses, destination=addresses, sport=ports, dport=ports, rest=st.binary(max_size=30))
@settings(max_examples=300, deadline=None)
def test_render_and_parse(source, destination, sport: int, dport: int, rest: bytes) -> None:
    both4 = is_v4(source) and is_v4(destination)
    for version in (1, 2):
        header = _proxy.render(version, str(source), sport, str(destination), dport)
        assert len(header) <= 107
        assert decode(header) == (both4, packed(source), sport, packed(destination), dport)
        length, family, src, src_port, dst, dst_port = _proxy.parse(header + rest)
        assert (length, family, src_port, dst_port) == (len(header), 4 if both4 else 6, sport, dport)
        assert (packed(ipaddress.ip_address(src)), packed(ipaddress.ip_address(dst))) == (
            packed(source),
            packed(destination),
        )


def is_v4(address) -> bool:
    return address.version == 4 or address.ipv4_mapped is not None


def packed(address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def decode(header: bytes) -> tuple[bool, bytes, int, bytes, int]:
    """A second reading of the specification, by the standard library."""
    if header.startswith(b"PROXY "):
        word, family, src, dst, sport, dport = header.removesuffix(b"\r\n").decode().split(" ")
        assert word == "PROXY"
        make = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}[family]
        assert "." not in src or family == "TCP4"
        return family == "TCP4", packed(make(src)), int(sport), packed(make(dst)), int(dport)
    signature, command, kind, length = struct.unpack("!12sBBH", header[:16])
    assert (signature, command, length) == (SIGNATURE, 0x21, len(header) - 16)
    raw_src, raw_dst, sport2, dport2 = struct.unpack({0x11: "!4s4sHH", 0x21: "!16s16sHH"}[kind], header[16:])
    ends = [packed(ipaddress.ip_address(raw)) for raw in (raw_src, raw_dst)]
    return kind == 0x11, ends[0], sport2, ends[1], dport2


def test_render_refuses_other_versions_and_names() -> None:
    for version in (0, 3):
        with pytest.raises(ValueError, match="expected 1 or 2"):
            _proxy.render(version, "1.2.3.4", 1, "1.2.3.4", 2)
    with pytest.raises(ValueError, match="expected an IPv4 or IPv6 address"):
        _proxy.render(1, "localhost", 1, "1.2.3.4", 2)


def test_hostile_bytes() -> None:
    """Mutated headers: never a crash, and an accepted header lies inside the data and is accepted alone."""
    seeds = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    assert len(seeds) >= 10
    dice = random.Random(20260101)
    accepted = 0
    for _ in range(30_000):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(4)):
            place = dice.randrange(len(data) + 1)
            kind = dice.randrange(3)
            if kind == 0:
                data[place : place + 1] = bytes([dice.randrange(256)])
            elif kind == 1:
                del data[place : place + dice.randrange(4)]
            else:
                data[place:place] = dice.randbytes(dice.randrange(4))
        try:
            found = _proxy.parse(bytes(data))
        except ValueError:
            continue
        if found is not None:
            accepted += 1
            assert 15 <= found[0] <= min(len(data), 4096)
            assert _proxy.parse(bytes(data[: found[0]])) == found
            assert _proxy.parse(bytes(data[: found[0] - 1])) is None
    assert accepted > 1000


def test_random_bytes_are_refused_or_wait() -> None:
    dice = random.Random(7)
    for _ in range(5_000):
        for head in (b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE):
            try:
                _proxy.parse(head + dice.randbytes(dice.randrange(40)))
            except ValueError:
                continue


def test_proxy_protocol_library_agrees() -> None:
    library = pytest.importorskip("proxyprotocol.detect")
    from proxyprotocol import ProxyProtocolIncompleteError

    for source, destination in (("192.0.2.1", "198.51.100.2"), ("2001:db8::1", "::2"), ("192.0.2.1", "2001:db8::2")):
        for version in (1, 2):
            header = _proxy.render(version, source, 50000, destination, 443)
            result = read_with(library.ProxyProtocolDetect(), header, ProxyProtocolIncompleteError)
            ends = [(ipaddress.ip_address(str(end[0])), end[1]) for end in (result.source, result.dest)]
            assert [(packed(address), port) for address, port in ends] == [
                (packed(ipaddress.ip_address(source)), 50000),
                (packed(ipaddress.ip_address(destination)), 443),
            ]


def read_with(decoder, header: bytes, incomplete: type[Exception]):
    """Feed the library's decoder just what it asks for; it must never ask for more than the header."""
    taken = b""
    while True:
        try:
            return decoder.unpack(taken)
        except incomplete as error:
            size = error.want_read.want_bytes
            if size is None:
                size = header.index(b"\n", len(taken)) + 1 - len(taken)
            assert len(taken) + size <= len(header)
            taken = header[: len(taken) + size]
