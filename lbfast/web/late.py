"""What libraries import only when they first need it: imported while the files can still be read."""

from __future__ import annotations

import importlib
from typing import Final

import anyio._backends._asyncio  # noqa: F401
import cryptography.hazmat.backends.openssl
import cryptography.hazmat.primitives.serialization  # noqa: F401

_NAMES: Final = (
    *("concurrent.futures.thread", "encodings.idna", "encodings.utf_8_sig", "_strptime", "linecache", "email.utils"),
    *("email.message", "python_multipart", "starlette.formparsers", "uuid", "csv", "http.cookies", "asyncio.sslproto"),
    *("argon2.low_level", "pyotp.utils", "segno.writers", "zoneinfo", "html", "bisect"),
)


def import_all() -> None:
    for name in _NAMES:
        importlib.import_module(name)
