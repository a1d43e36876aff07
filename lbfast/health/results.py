"""The last 32 probe results and the certificate of each real server, in shared memory.

One writer (the health process), any number of readers, no lock.  Each record is
written with one copy and carries a checksum: a reader that meets the writer in
the middle of a record, or a record whose writer was killed there, sees a wrong
checksum, tries again and in the end leaves that record out.  A number that grows
by one with each result of a server gives the order, so there is no position to
keep beside the records.

A real server has 8 KiB: 32 records of 192 bytes, the 16 bytes of its id, and its
certificate as JSON.  The id tells whether the place still belongs to the same server.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, replace

from lbfast._shm import Region
from lbfast.health.certificates import Certificate
from lbfast.health.text import fit

KIND = "results"
VERSION = 1
MAX_REALS = 32_768
DATA = 4_096  # the region's own header lies before
REAL_SIZE = 8_192
RECORDS = 32
RECORD_SIZE = 192
_OWNER = RECORDS * RECORD_SIZE
_CERTIFICATE = _OWNER + 16
_TRIES = 5
_LIMITS = (2_000, 400, 200, 100, 64)  # bytes a text of a note may have; with the last one every note fits

_HEAD = struct.Struct("<IHBxQqI")  # checksum, bytes of reason, ok, number, Unix ms, duration in ms
_NOTE = struct.Struct("<IHxx")  # checksum, bytes of JSON
MAX_REASON = RECORD_SIZE - _HEAD.size
MAX_NOTE = REAL_SIZE - _CERTIFICATE - _NOTE.size


@dataclass(frozen=True, slots=True)
class StoredResult:
    at: float  # Unix time, seconds
    ok: bool
    duration_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class CertificateNote:
    """What the last TLS probe saw of the certificate, and what was to be said about it then."""

    certificate: Certificate | None = None
    warnings: tuple[str, ...] = ()


class ProbeResults:
    def __init__(self, region: Region) -> None:
        self._region = region
        self._memory = memoryview(region)
        self.capacity = (region.size - DATA) // REAL_SIZE
        self._numbers: dict[int, int] = {}  # of the writer: last number by real server

    @classmethod
    def create(cls, reals: int = MAX_REALS) -> ProbeResults:
        """Room for ``reals`` real servers; memory is taken when a server's first result is written."""
        if not 0 < reals <= MAX_REALS:
            raise ValueError(f"probe results for {reals} real servers: should be 1 to {MAX_REALS}")
        return cls(Region.create(KIND, DATA + reals * REAL_SIZE, VERSION))

    @classmethod
    def attach(cls, fd: int) -> ProbeResults:
        return cls(Region.attach(fd, KIND, VERSION))

    @property
    def fd(self) -> int:
        return self._region.fd

    def close(self) -> None:
        self._memory.release()
        self._region.close()

    def claim(self, real: int, id: bytes) -> None:
        """Writer: from now on the place belongs to the server of that id; wiped if it was another's."""
        start = self._start(real)
        if bytes(self._memory[start + _OWNER : start + _CERTIFICATE]) == id:
            return
        if len(id) != 16:
            raise ValueError(f"id of real server {real}: should be 16 bytes, is {len(id)}")
        self._memory[start : start + REAL_SIZE] = bytes(REAL_SIZE)
        self._memory[start + _OWNER : start + _CERTIFICATE] = id
        self._numbers.pop(real, None)

    def add(self, real: int, at_unix: float, ok: bool, duration_ms: int, reason: str) -> None:
        """Writer: one more result; the oldest gives way."""
        number = self._next_number(real)
        text = fit(reason, MAX_REASON).encode()
        duration = min(max(duration_ms, 0), 0xFFFF_FFFF)
        raw = bytearray(RECORD_SIZE)
        _HEAD.pack_into(raw, 0, 0, len(text), ok, number, int(at_unix * 1000), duration)
        raw[_HEAD.size : _HEAD.size + len(text)] = text
        struct.pack_into("<I", raw, 0, zlib.crc32(raw[4:]))
        start = self._start(real) + (number % RECORDS) * RECORD_SIZE
        self._memory[start : start + RECORD_SIZE] = raw
        self._numbers[real] = number

    def last(self, real: int) -> list[StoredResult]:
        """At most 32 results, newest first."""
        found = [record for index in range(RECORDS) if (record := self._record(real, index)) is not None]
        found.sort(key=lambda pair: pair[0], reverse=True)
        return [result for _, result in found]

    def set_note(self, real: int, note: CertificateNote) -> None:
        """Writer: replace what is known of the server's certificate; names that do not fit are left out."""
        raw = next(raw for limit in _LIMITS if len(raw := _render_note(_shorten(note, limit))) <= MAX_NOTE)
        start = self._start(real) + _CERTIFICATE
        self._memory[start : start + _NOTE.size + len(raw)] = _NOTE.pack(zlib.crc32(raw), len(raw)) + raw

    def note(self, real: int) -> CertificateNote:
        """What is known of the server's certificate; empty before the first TLS probe."""
        start = self._start(real) + _CERTIFICATE
        for _ in range(_TRIES):
            raw = bytes(self._memory[start : start + _NOTE.size + MAX_NOTE])
            checksum, length = _NOTE.unpack_from(raw)
            if not checksum and not length:
                break  # nothing was ever written
            text = raw[_NOTE.size : _NOTE.size + length]
            if length and zlib.crc32(text) == checksum:
                return _parse_note(text)
        return CertificateNote()

    def _start(self, real: int) -> int:
        if not 0 <= real < self.capacity:
            raise IndexError(f"real server {real}: should be 0 to {self.capacity - 1}")
        return DATA + real * REAL_SIZE

    def _next_number(self, real: int) -> int:
        last = self._numbers.get(real)
        if last is None:  # a new writer goes on after the old one
            found = [record[0] for index in range(RECORDS) if (record := self._record(real, index)) is not None]
            last = max(found, default=0)
        return last + 1

    def _record(self, real: int, index: int) -> tuple[int, StoredResult] | None:
        start = self._start(real) + index * RECORD_SIZE
        for _ in range(_TRIES):
            raw = bytes(self._memory[start : start + RECORD_SIZE])
            checksum, length, ok, number, at_ms, duration_ms = _HEAD.unpack_from(raw)
            if number == 0 and checksum == 0:
                return None
            if zlib.crc32(raw[4:]) == checksum:
                reason = raw[_HEAD.size : _HEAD.size + length].decode("utf-8", "replace")
                return number, StoredResult(at_ms / 1000, bool(ok), duration_ms, reason)
        return None


def _render_note(note: CertificateNote) -> bytes:
    content = {"certificate": asdict(note.certificate) if note.certificate else None, "warnings": note.warnings}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _parse_note(raw: bytes) -> CertificateNote:
    content = json.loads(raw)
    found = content["certificate"]
    certificate = None if found is None else Certificate(**{**found, "names": tuple(found["names"])})
    return CertificateNote(certificate, tuple(content["warnings"]))


def _shorten(note: CertificateNote, limit: int) -> CertificateNote:
    """At most ``limit`` bytes for each text, and one name for each 20 of them."""
    warnings = tuple(fit(text, limit) for text in note.warnings[:3])
    if note.certificate is None:
        return CertificateNote(None, warnings)
    certificate = note.certificate
    names = tuple(fit(name, limit) for name in certificate.names[: limit // 20])
    shorter = replace(
        certificate,
        names=names,
        subject=fit(certificate.subject, limit),
        issuer=fit(certificate.issuer, limit),
        problem=fit(certificate.problem, limit),
    )
    return CertificateNote(shorter, warnings)
