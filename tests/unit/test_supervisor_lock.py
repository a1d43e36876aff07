"""The lock: one holder, who is named; gone with its holder, however that ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn

import pytest
from waiting import is_running

from lbfast.supervisor.addresses import ServiceAddresses
from lbfast.supervisor.lock import AlreadyRunning, Lock

VARIABLE = "LBFAST_RUNTIME_DIR"


def test_second_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock", VARIABLE), Lock(tmp_path / "lock", VARIABLE)
    first.acquire()
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}.*{VARIABLE}") as refused:
        second.acquire()
    assert refused.value.pid == os.getpid()
    first.release()
    second.acquire()
    second.release()
    assert not (tmp_path / "lock").exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """The directory is open to control's user, and the lock is written by root."""
    other = tmp_path / "other"
    other.write_text("not a lock")
    (tmp_path / "lock").symlink_to(other)
    with pytest.raises(OSError, match="lock"):
        Lock(tmp_path / "lock", VARIABLE).acquire()
    assert other.read_text() == "not a lock"


def test_the_record_of_addresses_follows_no_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("no record")
    for name in ("addresses.json", "addresses.new"):
        (tmp_path / name).symlink_to(other)
    ServiceAddresses(tmp_path / "addresses.json")._write([])
    assert other.read_text() == "no record"
    assert not (tmp_path / "addresses.json").is_symlink()


def test_left_over_file_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("99999999999 and more text than a pid")
    lock = Lock(path, VARIABLE)
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()


def test_ends_with_a_killed_holder_whose_child_forgot_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    read, write = os.pipe()
    holder = os.fork()
    if holder == 0:
        _hold(path, write)
    os.close(write)
    with open(read) as pipe:
        child = int(pipe.readline())
    try:
        lock = Lock(path, VARIABLE)
        with pytest.raises(AlreadyRunning):
            lock.acquire()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        lock.acquire()
        assert is_running(child)
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)


def _hold(path: Path, write: int) -> NoReturn:
    """Take the lock, fork a child that forgets it and lives on like a worker, say its pid, wait."""
    lock = Lock(path, VARIABLE)
    lock.acquire()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        lock.forget()
        os.write(tell, b"x")
        os.close(write)
        signal.pause()
    os.read(told, 1)
    os.write(write, b"%d\n" % child)
    os.close(write)
    while True:
        signal.pause()
