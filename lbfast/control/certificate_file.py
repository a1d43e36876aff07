"""Whether the web interface's certificate, as the configuration names it, can be used by this process."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from lbfast.config.errors import printable_whole
from lbfast.model.appliance import WebSettings


@dataclass(frozen=True)
class CertificateFileFault:
    """``key``: which of the two keys of [web] is wrong."""

    key: str
    found: str
    expected: str


def certificate_fault(web: WebSettings | None) -> CertificateFileFault | None:
    """The web interface could not start with it; None when it could, or when no certificate is named."""
    if web is None or web.certificate is None or not web.tls:
        return None
    for key, path in (("certificate", web.certificate), ("key", web.key)):
        if path is not None and (why := _why_unreadable(path)):
            return CertificateFileFault(key, f'"{printable_whole(path)}": {why}', "a PEM file that can be read")
    try:
        # Without a password of our own OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(web.certificate, web.key, password="")
    except (ssl.SSLError, ValueError):
        expected = "a PEM file with the certificate and its chain, and its key there or under `key`, without a password"
        return CertificateFileFault("certificate", f'"{printable_whole(web.certificate)}"', expected)
    return None


def _why_unreadable(path: str) -> str:
    try:
        with open(path, "rb"):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()
