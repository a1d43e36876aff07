"""Reading certificates, and what is said about them when."""

from __future__ import annotations

import ssl

import pytest
import trustme

from lbfast.health.certificate_watch import CertificateWatch
from lbfast.health.certificates import DAY_S, Certificate, drift_warning, expiry_warning, read_certificate

NOW = 1_800_000_000.0


def lasting(days: float, fingerprint: str = "aa") -> Certificate:
    return Certificate(fingerprint, "CN=s1", "CN=ca", (), 0, int(NOW + days * DAY_S))


def test_a_real_certificate_is_read() -> None:
    issued = trustme.CA().issue_cert("pacs.example", "192.0.2.7", common_name="pacs")
    der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
    certificate = read_certificate(der)
    assert certificate.problem == ""
    assert "CN=pacs" in certificate.subject
    assert set(certificate.names) == {"pacs.example", "192.0.2.7"}
    assert certificate.not_before < certificate.not_after
    assert len(certificate.fingerprint) == 64


@pytest.mark.parametrize("der", [b"", b"\x30\x03abc", b"\x00" * 5_000])
def test_nonsense_is_a_problem_not_an_exception(der: bytes) -> None:
    certificate = read_certificate(der)
    assert certificate.problem.startswith("unreadable certificate")
    assert len(certificate.fingerprint) == 64
    warning = expiry_warning(certificate, NOW)
    assert warning is not None
    assert "unreadable" in warning.message


@pytest.mark.parametrize(
    ("days", "level", "text"),
    [
        (31, 0, ""),
        (30.01, 0, ""),
        (30, 1, "less than 30 days"),
        (14.01, 1, "less than 30 days"),
        (14, 2, "less than 14 days"),
        (7, 3, "less than 7 days"),
        (0.1, 3, "less than 7 days"),
        (0, 4, "expired"),
        (-3, 4, "expired 3 days ago"),
    ],
)
def test_levels(days: float, level: int, text: str) -> None:
    warning = expiry_warning(lasting(days), NOW)
    assert (warning.level if warning else 0) == level
    assert text in (warning.message if warning else "")


def test_not_valid_yet() -> None:
    warning = expiry_warning(Certificate("aa", "CN=x", "", (), int(NOW + 2 * DAY_S), int(NOW + 90 * DAY_S)), NOW)
    assert warning is not None
    assert "not valid yet (in 2.0 days)" in warning.message


def test_drift() -> None:
    same = {"a": lasting(90), "b": lasting(90)}
    assert drift_warning("Symphony", same) is None
    text = drift_warning("Symphony", {**same, "c": lasting(90, "cc" * 32)})
    assert text is not None
    assert "2 different certificates" in text
    assert "a, b: CN=s1 (sha256 aa" in text
    assert "c: CN=s1 (sha256 cccccccccccccccc…)" in text


def test_drift_text_is_bounded() -> None:
    seen = {f"server {n}": lasting(90, f"{n % 100:02}" * 32) for n in range(500)}
    text = drift_warning("Symphony", seen)
    assert text is not None
    assert "100 different" in text
    assert len(text) < 1_000


def test_each_warning_is_loud_once() -> None:
    watch = CertificateWatch("Symphony")
    certificate = lasting(31)
    first = watch.observe("S1", certificate, NOW)
    assert first.loud == ()
    assert first.note is not None
    assert watch.observe("S1", certificate, NOW) == type(first)(None, ())
    said = [watch.observe("S1", certificate, NOW + day * DAY_S).loud for day in range(40)]
    assert [day for day, loud in enumerate(said) if loud] == [1, 17, 24, 31]
    assert "Symphony: S1: certificate CN=s1 has expired" in said[31][0]


def test_a_renewed_certificate_starts_anew_and_drift_is_said_once() -> None:
    watch = CertificateWatch("Symphony")
    for label in ("S1", "S2"):
        watch.observe(label, lasting(5), NOW)
    renewed = watch.observe("S1", lasting(90, "bb"), NOW)
    assert len(renewed.loud) == 1
    assert "different certificates" in renewed.loud[0]
    assert renewed.note is not None
    assert renewed.note.warnings == renewed.loud
    second = watch.observe("S2", lasting(5), NOW)
    assert second.loud == ()
    assert second.note is not None
    assert len(second.note.warnings) == 2  # expiry and drift, both standing
    healed = watch.observe("S2", lasting(90, "bb"), NOW)
    assert healed.loud == ()
    assert healed.note is not None
    assert healed.note.warnings == ()
