"""The web interface's certificate: made at the first start, or uploaded and checked before it is used."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbfast.control.own_certificate import OWN, UPLOADED
from lbfast.model.appliance import WebSettings
from lbfast.web.said import said

BEFORE: Final = "certificate-before.pem"
VALID_FOR: Final = timedelta(days=825)  # the most that browsers take
RENEW_BEFORE: Final = timedelta(days=30)
LARGEST_PEM: Final = 200_000
LEAST_RSA_BITS: Final = 2048


class CertificateFault(Exception):
    """A certificate that cannot be used, and why."""


@dataclass(frozen=True)
class Certificate:
    """What is shown of the one in use."""

    path: Path
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str
    is_self_signed: bool


def certificate_files(web: WebSettings, folder: Path) -> tuple[Path, Path | None]:
    """The PEM in use and its key: the configured one, the uploaded one, or our own, made if need be."""
    if web.certificate is not None:
        return Path(web.certificate), Path(web.key) if web.key else None
    if (folder / UPLOADED).exists():
        return folder / UPLOADED, None
    own = folder / OWN
    if not _is_fresh(own):
        _write(own, make_self_signed(host_names()))
    return own, None


def make_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the library's own choice of ciphers; OSError when the files cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def describe(path: Path) -> Certificate:
    """The first certificate of a PEM file."""
    found = x509.load_pem_x509_certificates(path.read_bytes())[0]
    fingerprint = found.fingerprint(hashes.SHA256()).hex(":").upper()
    return Certificate(
        path,
        found.subject.rfc4514_string(),
        found.issuer.rfc4514_string(),
        tuple(_names_of(found)),
        found.not_valid_before_utc,
        found.not_valid_after_utc,
        fingerprint,
        found.issuer == found.subject,
    )


def host_names() -> list[str]:
    """The names and addresses by which a browser may reach this machine."""
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    try:
        names.add(socket.getfqdn())
        names |= {str(it[4][0]).partition("%")[0] for it in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        pass  # a machine without a name service: its own name has to do
    names |= set(_own_addresses())
    return sorted(name for name in names if name)


def make_self_signed(names: list[str], moment: datetime | None = None) -> bytes:
    """Key and certificate as PEM."""
    moment = moment or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64] or "lbfast")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(hours=1))
        .not_valid_after(moment + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName(list(_general_names(names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def check_pem(certificates: bytes, key: bytes, moment: datetime) -> bytes:
    """Key and chain as one PEM file to be used; CertificateFault says what is wrong with them."""
    if len(certificates) + len(key) > LARGEST_PEM:
        raise CertificateFault(
            said(
                "The files have more than %(most)s bytes; a certificate chain is far smaller.", most=f"{LARGEST_PEM:,}"
            )
        )
    chain = _load_chain(certificates)
    private = _load_key(key or certificates)
    if _public_bytes(private.public_key()) != _public_bytes(chain[0].public_key()):
        raise CertificateFault(
            said("The key does not belong to the first certificate. Put the server's certificate first.")
        )
    _check_times(chain, moment)
    _check_order(chain)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem + b"".join(it.public_bytes(serialization.Encoding.PEM) for it in chain)


def install(folder: Path, pem: bytes) -> None:
    """Take a checked PEM into the place of the uploaded one; the one before is kept for a way back."""
    path = folder / UPLOADED
    if path.exists():
        os.replace(path, folder / BEFORE)
    else:
        (folder / BEFORE).unlink(missing_ok=True)
    _write(path, pem)


def uninstall(folder: Path) -> None:
    """The way back: the one before, or our own."""
    if (folder / BEFORE).exists():
        os.replace(folder / BEFORE, folder / UPLOADED)
    else:
        (folder / UPLOADED).unlink(missing_ok=True)


def _load_chain(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateFault(
            said("The certificate is no PEM file: it begins with -----BEGIN CERTIFICATE-----.")
        ) from None


def _load_key(pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_key_part(pem), password=None)
    except TypeError:
        raise CertificateFault(
            said("The key is protected by a password. Remove it first: openssl pkey -in KEY.")
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateFault(
            said("There is no usable private key: a PEM file has one in -----BEGIN PRIVATE KEY-----.")
        ) from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < LEAST_RSA_BITS:
            raise CertificateFault(
                said(
                    "The RSA key has %(key_size)s bits; browsers want at least %(least)s.",
                    key_size=key.key_size,
                    least=LEAST_RSA_BITS,
                )
            )
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    raise CertificateFault(said("Browsers take RSA and elliptic-curve keys; this one is of another kind."))


def _key_part(pem: bytes) -> bytes:
    """The key alone, also of a file that has certificates before it."""
    start = pem.find(b"-----BEGIN ")
    while start >= 0:
        if b"PRIVATE KEY" in pem[start : start + 50]:
            return pem[start:]
        start = pem.find(b"-----BEGIN ", start + 1)
    return pem


def _check_times(chain: list[x509.Certificate], moment: datetime) -> None:
    for place, found in enumerate(chain, 1):
        if found.not_valid_after_utc <= moment:
            raise CertificateFault(
                said(
                    "Certificate %(place)s of the chain expired on %(day)s.",
                    place=place,
                    day=f"{found.not_valid_after_utc:%Y-%m-%d}",
                )
            )
        if found.not_valid_before_utc > moment:
            raise CertificateFault(
                said(
                    "Certificate %(place)s is valid only from %(time)s UTC.",
                    place=place,
                    time=f"{found.not_valid_before_utc:%Y-%m-%d %H:%M}",
                )
            )


def _check_order(chain: list[x509.Certificate]) -> None:
    for place, (lower, upper) in enumerate(itertools.pairwise(chain), 1):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature):
            raise CertificateFault(
                said(
                    "Certificate %(place)s was not issued by certificate %(next)s: the server's first, the root last.",
                    place=place,
                    next=place + 1,
                )
            ) from None


def _public_bytes(key: object) -> bytes:
    encode = key.public_bytes  # type: ignore[attr-defined]
    made: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return made


def _is_fresh(path: Path) -> bool:
    try:
        return describe(path).not_after - RENEW_BEFORE > datetime.now(UTC)
    except (OSError, ValueError, IndexError):
        return False


def _write(path: Path, pem: bytes) -> None:
    made = path.with_suffix(".new")
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)


def _general_names(names: list[str]) -> Iterator[x509.GeneralName]:
    for name in names:
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            if name.isascii() and " " not in name:
                yield x509.DNSName(name)


def _names_of(found: x509.Certificate) -> Iterator[str]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return
    for name in names:
        yield str(name.value)


def _own_addresses() -> Iterator[str]:
    """The address that packets to the world would carry; nothing is sent."""
    for family, world in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((world, 9))
                yield str(sock.getsockname()[0])
            except OSError:
                continue
