"""When the certificate of the web interface ends, read from its file: alerts tell it, whether anybody looks or not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509

from lbfast.control.backup_parts import WEB
from lbfast.model.appliance import WebSettings

OWN: Final = "self-signed.pem"
UPLOADED: Final = "certificate.pem"
LARGEST: Final = 1 << 20


class OwnCertificate:
    """Of the configuration that runs."""

    def __init__(self, web: WebSettings | None, state_dir: Path) -> None:
        self._folder = state_dir / WEB
        self.replace(web)

    def replace(self, web: WebSettings | None) -> None:
        self._is_used = web is not None and web.tls
        self._named = Path(web.certificate) if web is not None and web.certificate is not None else None

    def ends_at(self) -> float | None:
        """Unix time; None without TLS, and when the file cannot be read: then the web process says so itself."""
        if not self._is_used:
            return None
        for path in (self._named,) if self._named else (self._folder / UPLOADED, self._folder / OWN):
            try:
                with path.open("rb") as stream:
                    found = x509.load_pem_x509_certificates(stream.read(LARGEST))
                return found[0].not_valid_after_utc.timestamp()
            except FileNotFoundError:
                continue
            except (OSError, ValueError, IndexError):
                return None
        return None
