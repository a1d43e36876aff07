"""Read the certificates that real servers present, and say what is wrong with them.

They are never verified for the verdict: behind a pass-through service a
self-signed certificate is normal, and an expired one is the clients' to judge.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from lbfast.health.text import clean

DAY_S = 86_400
WARN_DAYS = (7, 14, 30)
MAX_NAMES = 50


@dataclass(frozen=True, slots=True)
class Certificate:
    """``not_before`` and ``not_after`` are Unix times; 0 when the certificate could not be read."""

    fingerprint: str  # SHA-256 of the DER, hexadecimal
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_before: int = 0
    not_after: int = 0
    problem: str = ""  # why it could not be read


@dataclass(frozen=True, slots=True)
class CertificateWarning:
    """``level`` grows with urgency: 30, 14, 7 days are 1, 2, 3; expired is 4."""

    level: int
    message: str


# a memo of a pure function: the same few certificates are presented at every probe
@lru_cache(maxsize=4096)
def read_certificate(der: bytes) -> Certificate:
    fingerprint = hashlib.sha256(der).hexdigest()
    try:
        # the library warns about odd but common certificates (serial 0, ...); nothing for us to act on
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = x509.load_der_x509_certificate(der)
            return Certificate(
                fingerprint,
                clean(parsed.subject.rfc4514_string()),
                clean(parsed.issuer.rfc4514_string()),
                _names(parsed),
                int(parsed.not_valid_before_utc.timestamp()),
                int(parsed.not_valid_after_utc.timestamp()),
            )
    except Exception as error:  # foreign input: the library raises many kinds
        return Certificate(fingerprint, problem=clean(f"unreadable certificate: {error}")[:120])


def _names(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = extension.get_values_for_type(x509.DNSName)
    addresses = (str(address) for address in extension.get_values_for_type(x509.IPAddress))
    return tuple(clean(name) for name in [*dns, *addresses][:MAX_NAMES])


def expiry_warning(certificate: Certificate, now_unix: float) -> CertificateWarning | None:
    """Whether to worry about one certificate at this moment."""
    if certificate.problem:
        return CertificateWarning(3, certificate.problem)
    if now_unix < certificate.not_before:
        days = (certificate.not_before - now_unix) / DAY_S
        return CertificateWarning(4, f"certificate {certificate.subject} is not valid yet (in {days:.1f} days)")
    left_s = certificate.not_after - now_unix
    if left_s <= 0:
        return CertificateWarning(4, f"certificate {certificate.subject} has expired {-left_s / DAY_S:.0f} days ago")
    for level, days in zip((3, 2, 1), WARN_DAYS, strict=True):
        if left_s <= days * DAY_S:
            return CertificateWarning(level, f"certificate {certificate.subject} expires in less than {days} days")
    return None


def drift_warning(service: str, seen: Mapping[str, Certificate]) -> str | None:
    """Whether servers of one service present different certificates; ``seen`` is by label of the server."""
    groups: dict[str, list[str]] = {}
    for label, certificate in seen.items():
        groups.setdefault(certificate.fingerprint, []).append(label)
    if len(groups) < 2:
        return None
    by_fingerprint = {certificate.fingerprint: certificate for certificate in seen.values()}
    parts = [_describe(by_fingerprint[print_], labels) for print_, labels in sorted(groups.items())]
    more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f"{service}: servers present {len(parts)} different certificates: " + "; ".join(parts[:4]) + more


def _describe(certificate: Certificate, labels: Sequence[str]) -> str:
    first, more = labels[:4], len(labels) - 4
    who = ", ".join(first) + (f" and {more} more" if more > 0 else "")
    return f"{who}: {certificate.subject or 'no subject'} (sha256 {certificate.fingerprint[:16]}…)"
