"""What is fuzzed: every parser that is fed from outside, each as a function of bytes that raises only for a bug."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from lbfast import _proxy
from lbfast.config import source, store
from lbfast.config.candidate import Candidate, unpack_candidate
from lbfast.config.errors import ConfigError
from lbfast.config.id_file import load_ids
from lbfast.config.unconfirmed import load_unconfirmed
from lbfast.config.versions import VersionStore
from lbfast.control import protocol
from lbfast.control.arguments import check_args
from lbfast.control.protocol import ControlError
from lbfast.control.statefile import load_marks
from lbfast.control.verbs import find_verb
from lbfast.ha import wire
from lbfast.health import http
from lbfast.health.certificates import read_certificate
from lbfast.health.outcome import ProbeFailed
from lbfast.health.spec import ProbeSpec, ProbeType
from lbfast.health.trace import Trace
from lbfast.supervisor.addresses import read_record
from lbfast.supervisor.channel import MAX_MESSAGE, Channel, ChannelError
from lbfast.supervisor.orphans import find_orphans

CORPUS = Path(__file__).parent / "corpus"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONGEST_REASON = 2_000
_HEARTBEAT_KEY = bytes(range(32))


@dataclass(frozen=True)
class Target:
    """``words``: what a mutation may put in."""

    run: Callable[[bytes], None]
    corpus: Path
    words: tuple[bytes, ...] = ()

    def seeds(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.corpus.iterdir())]


def proxy(data: bytes) -> None:
    """An accepted header lies inside the data, is accepted alone, and no shorter part of it is."""
    try:
        found = _proxy.parse(data)
    except ValueError:
        return
    if found is not None:
        assert 15 <= found[0] <= min(len(data), 4096), found
        assert _proxy.parse(data[: found[0]]) == found
        assert _proxy.parse(data[: found[0] - 1]) is None


def config(data: bytes) -> None:
    """A configuration, or problems that can be shown; and what is accepted is accepted again."""
    try:
        loaded = store.validate(source.parse_source(source._decode(data, "fuzz"), "fuzz"))
    except ConfigError as error:
        assert error.problems
        assert str(error).encode("utf-8")
        return
    assert store.parse(loaded.text).config == loaded.config


def control_line(data: bytes) -> None:
    """A verb with checked arguments, or an error that fits into an answer."""
    try:
        request = protocol.decode_request(data)
        verb = find_verb(request.verb)
        check_args(verb.args, request.args)
    except ControlError as error:
        assert error.code in protocol.ERROR_CODES
        assert len(protocol.encode_error(error.code, error.message)) < LONGEST_REASON + len(data)


def control_answer(data: bytes) -> None:
    """What the command line reads."""
    try:
        protocol.decode_answer(data)
    except ControlError:
        return


def channel(data: bytes) -> None:
    """A message between processes: one object, or ChannelError; nothing else, and no descriptor is left."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        end = Channel(ours)
        try:
            theirs.send(data[:MAX_MESSAGE])
            message = end.receive(1.0)
            assert message is None or isinstance(message, dict)
        except ChannelError:
            return
        finally:
            end.close()


def candidate(data: bytes) -> None:
    """What control hands to the supervisor, which has more rights than control."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, data, 0)
        found: Candidate = unpack_candidate(fd)
    except (ConfigError, ValueError):
        return
    finally:
        os.close(fd)
    slots = list(found.placed.layout.reals.values())
    assert len(set(slots)) == len(slots)
    assert all(0 <= slot < 32_768 for slot in slots)
    assert all(0 <= slot < 4_096 for slot in found.placed.layout.services.values())
    services = {service.label for service in found.placed.config.virtual_services}
    assert services <= set(found.placed.layout.services)


class _Wire:
    """Says the data, in pieces whose length the data chooses, then nothing more."""

    def __init__(self, data: bytes) -> None:
        self._size = 1 + (data[0] if data else 0)
        self._data = data[1:]

    async def write(self, data: bytes) -> None:
        pass

    async def read(self) -> bytes:
        piece, self._data = self._data[: self._size], self._data[self._size :]
        return piece


_PROBES = (
    ProbeSpec(ProbeType.HTTP, "192.0.2.1", 80),
    ProbeSpec(ProbeType.HTTP, "192.0.2.1", 80, method="HEAD"),
    ProbeSpec(ProbeType.HTTP, "192.0.2.1", 80, expected_text="ok"),
    ProbeSpec(ProbeType.HTTP, "192.0.2.1", 80, expected_regex=re.compile("o+k")),
)


def probe_answer(data: bytes) -> None:
    """A verdict with a short reason of one printable line, whatever the server says."""
    spec = _PROBES[data[0] % len(_PROBES)] if data else _PROBES[0]
    try:
        reason = asyncio.run(http.ask(_Wire(data), spec, Trace()))
    except ProbeFailed as error:
        reason = str(error)
    assert reason.isprintable(), reason
    assert len(reason) < LONGEST_REASON, reason


def certificate(data: bytes) -> None:
    """Never an exception, and nothing that could break a line."""
    found = read_certificate(data)
    for text in (found.subject, found.issuer, found.problem, *found.names):
        assert text.isprintable(), text


def heartbeat(data: bytes) -> None:
    """Without the key nothing is let in; with it only what is one, and once."""
    guard = wire.Guard(_HEARTBEAT_KEY, own_life=7)
    assert guard.check(data) is wire.Refusal.FORGED
    signed = data + hmac.digest(_HEARTBEAT_KEY, data, "sha256")
    if isinstance(guard.check(signed), wire.Heard):
        assert isinstance(guard.check(signed), wire.Refusal), "it was let in twice"


def state_files(data: bytes) -> None:
    """Each file that the state and runtime directories may hold: read, or put aside and reported."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for file in ("state.json", "ids.json", "confirm.json", "children.json", "addresses.json"):
            (place / file).write_bytes(data)
        (place / "versions").mkdir()
        (place / "versions" / "000007.json").write_bytes(data)
        marks, trouble = load_marks(place / "state.json", NOW)
        assert trouble is None or not marks.admin
        for mark in marks.admin.values():
            assert mark.admin
        load_ids(place / "ids.json")
        unconfirmed = load_unconfirmed(place)
        if unconfirmed is not None:
            assert unconfirmed.remaining(NOW) >= 0
        read_record(place / "addresses.json")
        find_orphans(place / "children.json")
        for version in VersionStore(place).all():
            json.dumps(version.reason)


_JSON = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"1e999", b"-1", b"NaN", b'"\\ud800"', b"[" * 900)
_HTTP = (
    b"\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n\r\n",
    b"0\r\n",
)
_TOML = (
    b"[[",
    b"]]",
    b"[",
    b"]",
    b"=",
    b'"""',
    b"'''",
    b"{",
    b"}",
    b"\n",
    b"#",
    b"1e400",
    b"1979-05-27",
    b"\xef\xbb\xbf",
)
_PROXY = (b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b"65535", b"\r\n\r\n\x00\r\nQUIT\n", b"\x21\x11\x00\x0c")

TARGETS = MappingProxyType(
    {
        "proxy": Target(proxy, Path(__file__).parents[1] / "cython" / "corpus" / "proxy", _PROXY),
        "config": Target(config, CORPUS / "config", _TOML),
        "control_line": Target(control_line, CORPUS / "control_line", _JSON),
        "control_answer": Target(control_answer, CORPUS / "control_answer", _JSON),
        "channel": Target(channel, CORPUS / "channel", _JSON),
        "candidate": Target(candidate, CORPUS / "candidate", _JSON),
        "probe_answer": Target(probe_answer, CORPUS / "probe_answer", _HTTP),
        "certificate": Target(certificate, CORPUS / "certificate", (b"\x30\x82", b"\x06\x03\x55\x04", b"\xff\xff")),
        "heartbeat": Target(heartbeat, CORPUS / "heartbeat", (wire.MAGIC, b"\xff" * 8, bytes(8))),
        "state_files": Target(state_files, CORPUS / "state_files", _JSON),
    }
)
