"""What the web interface could not start with, before it is tried."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from lbfast.control.certificate_file import certificate_fault
from lbfast.model.appliance import WebSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pem")
    ca = trustme.CA()
    mine, other = ca.issue_cert("symphony.example"), ca.issue_cert("other.example")
    chain, key = b"".join(part.bytes() for part in mine.cert_chain_pems), mine.private_key_pem.bytes()
    locked = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    files = {"chain": chain, "key": key, "both": key + chain, "other": other.private_key_pem.bytes(), "locked": locked}
    for name, content in {**files, "text": b"hello\n"}.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("certificate", "key"), [("chain", "key"), ("both", None)])
def test_what_can_be_used(folder: Path, certificate: str, key: str | None) -> None:
    assert certificate_fault(_web(folder, certificate, key)) is None


@pytest.mark.parametrize(
    ("certificate", "key", "wrong", "found", "expected"),
    [
        ("none", None, "certificate", '/none": no such file', "can be read"),
        ("chain", "none", "key", '/none": no such file', "can be read"),
        (".", None, "certificate", "is a directory", "can be read"),
        ("text", None, "certificate", '/text"', "a PEM file with the certificate"),
        ("chain", None, "certificate", '/chain"', "its key there or under `key`"),
        ("chain", "other", "certificate", '/chain"', "its key"),
        ("chain", "locked", "certificate", '/chain"', "without a password"),
    ],
)
def test_what_cannot(folder: Path, certificate: str, key: str | None, wrong: str, found: str, expected: str) -> None:
    fault = certificate_fault(_web(folder, certificate, key))
    assert fault is not None
    assert fault.key == wrong
    assert found in fault.found
    assert expected in fault.expected


def test_nothing_named_is_nothing_wrong() -> None:
    assert certificate_fault(None) is None
    assert certificate_fault(WebSettings()) is None


def _web(folder: Path, certificate: str, key: str | None) -> WebSettings:
    return WebSettings(certificate=f"{folder}/{certificate}", key=None if key is None else f"{folder}/{key}")
