"""Debian's Chromium for the browser tests; without it they are skipped and say so."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import children_of, wait_for

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "proc")]  # web_world, and the live traffic of the process tests

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for a module; its event loop must not live longer than that."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs the program chromium (Debian: chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """As in all tests, but for what a module shares: its browser's threads, and servers that are probed meanwhile."""
    before = set(children_of(os.getpid()).values())
    threads = set(threading.enumerate())

    def left() -> set[threading.Thread]:
        return {it for it in threading.enumerate() if not it.name.startswith("asyncio") and "_serve" not in it.name}

    yield
    found = set(children_of(os.getpid()).values()) - before
    assert not found, f"the test left processes: {found}"
    wait_for(lambda: left() <= threads, 5, f"threads to end: {threading.enumerate()}")


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A new tab in a browser without cookies; what its console complains of fails the test."""
    context = chromium.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    assert not faults, faults
