"""What one probe saw."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from lbfast.health.certificates import Certificate

# Shortages of this machine.  They say nothing about the server that was to be probed.
LOCAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EAGAIN})


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """``is_local``: the probe could not be made for want of something here; it must not count."""

    ok: bool
    duration_ms: int
    reason: str
    certificate: Certificate | None = None
    is_local: bool = False


class ProbeFailed(Exception):
    """The server failed its probe; the text is the reason."""


class ProbeUnmade(Exception):
    """The probe could not be made for a reason that lies in this machine."""


def os_reason(doing: str, error: OSError) -> str:
    """``connect to 10.0.0.1:443: Connection refused``."""
    text = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return f"{doing}: {text}"
