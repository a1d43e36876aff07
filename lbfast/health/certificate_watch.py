"""Remember which certificates the servers of one service present, and say once what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbfast.health.certificates import Certificate, drift_warning, expiry_warning
from lbfast.health.results import CertificateNote


@dataclass(frozen=True, slots=True)
class Observed:
    """``note`` is what to store, None when it stands already; ``loud`` is what was not said before."""

    note: CertificateNote | None
    loud: tuple[str, ...]


@dataclass(slots=True)
class CertificateWatch:
    """One per virtual service."""

    service: str
    _seen: dict[str, Certificate] = field(default_factory=dict)  # by label
    _levels: dict[str, tuple[str, int]] = field(default_factory=dict)  # by label: fingerprint, level warned of
    _notes: dict[str, CertificateNote] = field(default_factory=dict)
    _drift: str | None = None

    def observe(self, label: str, certificate: Certificate, now_unix: float) -> Observed:
        expiry = expiry_warning(certificate, now_unix)
        drift = self._drift
        if self._seen.get(label) != certificate:  # compared with all others only when it changes
            self._seen[label] = certificate
            drift = drift_warning(self.service, self._seen)
        loud: list[str] = []
        fingerprint, level = self._levels.get(label, ("", 0))
        warned = level if fingerprint == certificate.fingerprint else 0
        if expiry is not None and expiry.level > warned:
            loud.append(f"{self.service}: {label}: {expiry.message}")
        self._levels[label] = (certificate.fingerprint, expiry.level if expiry else 0)
        if drift is not None and drift != self._drift:
            loud.append(drift)
        self._drift = drift
        warnings = (*((expiry.message,) if expiry else ()), *((drift,) if drift else ()))
        note = CertificateNote(certificate, warnings)
        changed = self._notes.get(label) != note
        self._notes[label] = note
        return Observed(note if changed else None, tuple(loud))
