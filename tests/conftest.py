"""Fixtures for all tests, and the guards that no test may leave anything behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from waiting import children_of, wait_for


def pytest_configure() -> None:
    """What a shell starts in the background ignores SIGINT, and so would all that the tests start and end by it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``root`` are skipped, with the reason, where they cannot run."""
    marked = [item for item in items if item.get_closest_marker("root")]
    reason = _why_no_namespaces() if marked else ""
    for item in marked if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a child process or a thread."""
    before = set(children_of(os.getpid()).values())
    threads = set(threading.enumerate())
    yield
    left = set(children_of(os.getpid()).values()) - before
    assert not left, f"the test left processes: {left}"
    wait_for(lambda: set(threading.enumerate()) <= threads, 5, f"threads to end: {threading.enumerate()}")


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """The authority that signs the test servers' certificates."""
    return trustme.CA()


@pytest.fixture(autouse=True)
def _no_places_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test that forgets to choose directories must not touch those of a running lbfast."""
    monkeypatch.setenv("LBFAST_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("LBFAST_STATE_DIR", str(tmp_path / "state"))


def _why_no_namespaces() -> str:
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not any(Path(folder, "ip").exists() for folder in os.environ.get("PATH", "").split(":")):
        return "needs the `ip` program (iproute2)"
    pid = os.fork()
    if pid == 0:
        try:
            import ctypes

            failed = ctypes.CDLL(None, use_errno=True).unshare(0x40000000)  # CLONE_NEWNET
        except BaseException:
            failed = 1
        os._exit(1 if failed else 0)
    return "" if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 else "needs the right to make network namespaces"
