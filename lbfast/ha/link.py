"""The replication link: frames over TLS 1.3, both ends with a certificate that the other has pinned."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lbfast.config.files import write_atomically

CERTIFICATE, KEY, PEER_CERTIFICATE = "pair_cert.pem", "pair_key.pem", "pair_peer.pem"
PAIRED = "lbfast-paired"  # in the handshake (ALPN), with strangers too: all that a box with a peer says to them
MOST_FRAME = 4 << 20
_HEAD = struct.Struct("!IB")
_BUFFERED = 1 << 20  # bytes on their way before the sender waits


class LinkError(Exception):
    """The other end is not our peer, or does not speak this protocol."""


@dataclass(frozen=True)
class Frame:
    """One message: a kind of one letter, and bytes."""

    kind: str
    data: bytes

    def json(self) -> dict[str, Any]:
        try:
            found = json.loads(self.data)
        except ValueError as error:
            raise LinkError(f"frame {self.kind} is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise LinkError(f"frame {self.kind} is not an object")
        return found


class Link:
    """One established connection to the peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=_BUFFERED)

    @property
    def fingerprint(self) -> str:
        """Of the certificate at the other end."""
        found = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return fingerprint_of(found or b"")

    @property
    def is_paired(self) -> bool:
        """Whether the box at the other end says that it has a peer."""
        return bool(self._writer.get_extra_info("ssl_object").selected_alpn_protocol() == PAIRED)

    async def receive(self) -> Frame:
        """The next frame; IncompleteReadError at the end, LinkError for what is none."""
        length, kind = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
        if length > MOST_FRAME:
            raise LinkError(f"a frame of {length} bytes, at most {MOST_FRAME} are allowed")
        return Frame(chr(kind), await self._reader.readexactly(length))

    async def send(self, kind: str, data: bytes | bytearray) -> None:
        """Waits while too much is on its way."""
        self.put(kind, data)
        await self._writer.drain()

    def put(self, kind: str, data: bytes | bytearray) -> None:
        self._writer.write(_HEAD.pack(len(data), ord(kind)))
        self._writer.write(data)

    def put_json(self, kind: str, document: Mapping[str, Any]) -> None:
        self.put(kind, json.dumps(document).encode())

    async def send_json(self, kind: str, document: Mapping[str, Any]) -> None:
        await self.send(kind, json.dumps(document).encode())

    def close(self) -> None:
        self._writer.transport.abort()


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), as people compare it."""
    return hashlib.sha256(certificate).hexdigest()


def own_fingerprint(state_dir: Path) -> str:
    return fingerprint_of(ssl.PEM_cert_to_DER_cert((state_dir / CERTIFICATE).read_text()))


def ensure_identity(state_dir: Path, name: str) -> None:
    """A key and a certificate of this box's own, made once."""
    if (state_dir / CERTIFICATE).exists() and (state_dir / KEY).exists():
        return
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"lbfast {name}"[:60])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Pinned, not judged by its dates: a box whose clock is wrong must still find its peer.
        .not_valid_before(now - timedelta(days=3650))
        .not_valid_after(now + timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(state_dir / KEY, secret, mode=0o600)
    write_atomically(state_dir / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def make_context(state_dir: Path, *, is_server: bool, peer: str | None) -> ssl.SSLContext:
    """``peer``: the pinned certificate (PEM); None while pairing, when the password decides."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_cert_chain(state_dir / CERTIFICATE, state_dir / KEY)
    if is_server == (peer is not None):  # who has a peer tells who looks for one
        context.set_alpn_protocols([PAIRED])
    if peer is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=peer)
    return context


async def dial(address: str, port: int, local: str, context: ssl.SSLContext) -> Link:
    """Connect to the peer; OSError, ssl.SSLError or TimeoutError when it is not to be had."""
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_connection(
            address, port, ssl=context, local_addr=(local, 0), limit=MOST_FRAME, server_hostname=""
        )
    return Link(reader, writer)


def read_pinned(state_dir: Path) -> str:
    """The peer's certificate."""
    with suppress(FileNotFoundError):
        return (state_dir / PEER_CERTIFICATE).read_text()
    raise LinkError(f"{state_dir / PEER_CERTIFICATE} is missing: pair again")


def make_secret() -> str:
    """A key of the heartbeats."""
    return os.urandom(32).hex()
