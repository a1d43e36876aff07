"""The second factor: time-based one-time passwords, and the picture that a phone scans."""

from __future__ import annotations

import io
from typing import Final

import pyotp
import segno

STEP_S: Final = 30
_SLACK: Final = 1  # steps that a phone's clock may be off, either way


def new_secret() -> str:
    return pyotp.random_base32()


def step_of(secret: str, code: str, moment: float) -> int | None:
    """The time step that a code belongs to; None when it is wrong now."""
    code = code.replace(" ", "")
    if not code.isdigit() or len(code) != 6:
        return None
    totp = pyotp.TOTP(secret)
    here = int(moment) // STEP_S
    for step in range(here - _SLACK, here + _SLACK + 1):
        if pyotp.utils.strings_equal(totp.generate_otp(step), code):
            return step
    return None


def address_of(secret: str, user: str, host: str) -> str:
    """What the picture says: ``otpauth://totp/...``."""
    return pyotp.TOTP(secret).provisioning_uri(name=f"{user}@{host}", issuer_name="lbfast")


def picture(text: str) -> bytes:
    """A QR code as SVG."""
    out = io.BytesIO()
    segno.make(text, error="m").save(out, kind="svg", scale=5, border=2, dark="#111", light="#fff", xmldecl=False)
    return out.getvalue()
