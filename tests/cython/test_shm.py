"""Shared memory regions: what is attached is what was made, and nobody can take it away from under the others."""

from __future__ import annotations

import os

import pytest

from lbfast._shm import Region


def test_what_was_made_is_attached() -> None:
    made = Region.create("things", 10_000, 3)
    attached = Region.attach(made.fd, "things", 3)
    memoryview(made)[5000] = 7
    assert memoryview(attached)[5000] == 7
    assert len(memoryview(attached)) >= 10_000


@pytest.mark.parametrize(
    ("kind", "version", "said"),
    [("others", 3, "region of kind 'things', expected 'others'"), ("things", 4, "layout version 3, expected 4")],
)
def test_another_thing_is_refused(kind: str, version: int, said: str) -> None:
    made = Region.create("things", 100, 3)
    with pytest.raises(ValueError, match=said):
        Region.attach(made.fd, kind, version)


@pytest.mark.parametrize("content", [b"", b"lbfast", bytes(64), b"lbfast\0" + b"\xff" * 4089])
def test_foreign_memory_is_refused(content: bytes) -> None:
    fd = os.memfd_create("foreign", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, content, 0)
        with pytest.raises(ValueError, match=r"descriptor|region"):
            Region.attach(fd, "things", 3)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 4096, 1 << 20])
def test_a_holder_cannot_change_its_size(size: int) -> None:
    """Shorter would end every process that reads what is gone."""
    made = Region.create("things", 50_000, 3)
    with pytest.raises(PermissionError):
        os.ftruncate(made.fd, size)
    memoryview(made)[49_999] = 1
