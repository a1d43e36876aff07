"""Probe results and certificate notes in shared memory."""

from __future__ import annotations

import os
import random
import signal

import pytest

from lbfast.health.certificates import Certificate
from lbfast.health.results import (
    DATA,
    MAX_REALS,
    MAX_REASON,
    REAL_SIZE,
    RECORD_SIZE,
    CertificateNote,
    ProbeResults,
    StoredResult,
)


@pytest.fixture
def results():
    made = ProbeResults.create(4)
    yield made
    made.close()


def test_newest_first_and_only_32(results: ProbeResults) -> None:
    for number in range(100):
        results.add(2, 1_700_000_000 + number, number % 2 == 0, number, f"result {number}")
    last = results.last(2)
    assert [result.duration_ms for result in last] == list(range(99, 67, -1))
    assert last[1] == StoredResult(1_700_000_098.0, True, 98, "result 98")
    assert results.last(1) == []
    assert results.last(3) == []


def test_readers_see_it_through_the_descriptor(results: ProbeResults) -> None:
    results.add(0, 1.5, False, 3, "no answer")
    other = ProbeResults.attach(results.fd)
    assert other.last(0) == [StoredResult(1.5, False, 3, "no answer")]
    other.close()


def test_a_new_writer_goes_on_after_the_old_one(results: ProbeResults) -> None:
    for number in range(40):
        results.add(0, number, True, number, "old")
    other = ProbeResults.attach(results.fd)
    other.add(0, 40, False, 40, "new")
    assert [result.duration_ms for result in results.last(0)] == list(range(40, 8, -1))
    other.close()


@pytest.mark.parametrize("reason", ["", "x" * MAX_REASON, "x" * 1_000, "é" * 200, "a" + "€" * 200])
def test_reasons_are_cut_between_characters(results: ProbeResults, reason: str) -> None:
    results.add(0, 1, True, 0, reason)
    (stored,) = results.last(0)
    assert len(stored.reason.encode()) <= MAX_REASON
    assert stored.reason == reason or (stored.reason.endswith("…") and reason.startswith(stored.reason[:-1]))


def test_a_torn_record_is_left_out(results: ProbeResults) -> None:
    for number in range(5):
        results.add(0, number, True, number, "a reason")
    memory = memoryview(results._region)
    memory[DATA + 3 * RECORD_SIZE + 40] ^= 0xFF
    memory.release()
    assert [result.duration_ms for result in results.last(0)] == [4, 3, 1, 0]


def test_claim_keeps_the_same_server_and_wipes_another(results: ProbeResults) -> None:
    one, two = bytes(range(16)), bytes(range(1, 17))
    results.claim(1, one)
    results.add(1, 1, True, 1, "connected")
    results.set_note(1, CertificateNote(Certificate("ab"), ("w",)))
    results.claim(1, one)
    assert len(results.last(1)) == 1
    results.claim(1, two)
    assert results.last(1) == []
    assert results.note(1) == CertificateNote()
    with pytest.raises(ValueError, match="16 bytes"):
        results.claim(1, b"short")


def test_certificate_note_round_trip(results: ProbeResults) -> None:
    note = CertificateNote(Certificate("ab" * 32, "CN=ä", "CN=ca", ("a.example", "::1"), 1, 2), ("expires soon",))
    assert results.note(0) == CertificateNote()
    results.set_note(0, note)
    assert results.note(0) == note
    results.set_note(0, CertificateNote(None, ("gone",)))
    assert results.note(0) == CertificateNote(None, ("gone",))


def test_a_huge_note_is_shortened_until_it_fits(results: ProbeResults) -> None:
    names = tuple(f"{number:03}." + "\\x" * 300 for number in range(50))
    huge = Certificate("ab" * 32, "CN=" + '"' * 5_000, "CN=" + "ü" * 5_000, names, 1, 2, "bad " * 500)
    results.set_note(0, CertificateNote(huge, ('"' * 3_000,) * 9))
    note = results.note(0)
    assert note.certificate is not None
    assert note.certificate.fingerprint == "ab" * 32
    assert note.certificate.not_after == 2
    assert results.last(1) == []  # the neighbour is untouched


@pytest.mark.parametrize("real", [-1, 4, 1_000_000])
def test_out_of_range(results: ProbeResults, real: int) -> None:
    with pytest.raises(IndexError, match="should be 0 to 3"):
        results.add(real, 1, True, 1, "x")
    with pytest.raises(IndexError):
        results.last(real)


def test_full_size_takes_memory_only_when_used() -> None:
    results = ProbeResults.create()
    try:
        assert results.capacity == MAX_REALS
        results.add(MAX_REALS - 1, 1, True, 1, "connected")
        assert os.fstat(results.fd).st_blocks * 512 <= 4 * REAL_SIZE
    finally:
        results.close()
    with pytest.raises(ValueError, match="should be 1 to"):
        ProbeResults.create(0)


def test_a_killed_writer_never_leaves_nonsense(results: ProbeResults) -> None:
    """A child writes as fast as it can and is killed; what is left is whole, in order, without gaps but one."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(10):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            writer = ProbeResults.attach(results.fd)
            number = max((int(result.at) for result in writer.last(0)), default=0)
            while True:
                number += 1
                writer.add(0, number, True, number, f"result {number} " + "x" * (number % 140))
                if number % 64 == 0:
                    os.write(writing, b".")
        os.close(writing)
        os.read(reading, 1)  # it is under way
        for _ in range(chance.randrange(200)):
            results.last(0)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        numbers = [int(result.at) for result in results.last(0)]
        assert numbers == sorted(numbers, reverse=True), seed
        assert len(numbers) >= 31, seed
        assert all(r.reason == f"result {int(r.at)} " + "x" * (int(r.at) % 140) for r in results.last(0)), seed
