"""The runtime and state directories, and what is said when they cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbfast.config.paths import (
    RUNTIME_VARIABLE,
    STATE_VARIABLE,
    PlaceError,
    control_socket,
    ensure_dir,
    runtime_dir,
    state_dir,
)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNTIME_VARIABLE, raising=False)
    monkeypatch.setenv(STATE_VARIABLE, "")
    assert (runtime_dir(), state_dir()) == (Path("/run/lbfast"), Path("/var/lib/lbfast"))
    assert control_socket() == Path("/run/lbfast/control.sock")


def test_they_are_moved_by_the_environment_and_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUNTIME_VARIABLE, "run/../here")
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    assert (runtime_dir(), state_dir()) == (tmp_path / "here", tmp_path / "state")


def test_a_socket_path_that_the_kernel_would_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, "/tmp/" + "x" * 100)
    with pytest.raises(PlaceError, match=r"found a socket path of 118 bytes, expected at most 107.*LBFAST_RUNTIME_DIR"):
        control_socket()


def test_directories_are_made_with_their_parents_and_mode(tmp_path: Path) -> None:
    place = tmp_path / "a/b"
    ensure_dir(place, 0o750, STATE_VARIABLE)
    assert place.stat().st_mode & 0o777 == 0o750
    place.chmod(0o700)
    ensure_dir(place, 0o750, STATE_VARIABLE)
    assert place.stat().st_mode & 0o777 == 0o700, "an existing directory is the operator's"


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlaceError, match="found something that is not a directory"):
        ensure_dir(tmp_path / "file", 0o755, STATE_VARIABLE)
    with pytest.raises(PlaceError, match="not a directory; run as root, or set LBFAST_STATE_DIR"):
        ensure_dir(tmp_path / "file/below", 0o755, STATE_VARIABLE)


def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        with pytest.raises(PlaceError, match="permission denied; run as root, or set LBFAST_RUNTIME_DIR"):
            ensure_dir(theirs / "x", 0o755, RUNTIME_VARIABLE)
        with pytest.raises(PlaceError, match="cannot be written to by user"):
            ensure_dir(Path("/usr"), 0o755, RUNTIME_VARIABLE)
    finally:
        os.seteuid(user)
