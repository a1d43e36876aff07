"""The machine and the program under test, as they are written into every sample."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

PIPE_PAGES = Path("/proc/sys/fs/pipe-user-pages-soft")


def read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def machine() -> dict[str, str | int]:
    model = re.search(r"model name\s*:\s*(.+)", read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", read("/proc/meminfo"))
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(int(memory[1]) / 1e6) if memory else 0,
        "kernel": platform.release(),
        "congestion": read("/proc/sys/net/ipv4/tcp_congestion_control"),
    }


def commit(top: Path) -> str:
    """Short name of the commit, with + when tracked files differ from it."""
    asked = ["git", "-C", str(top)]
    name = subprocess.run([*asked, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*asked, "status", "--porcelain", "--untracked-files=no", "--", "lbfast", "setup.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (name.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


@contextlib.contextmanager
def unlimited_pipes() -> Iterator[bool]:
    """Root's peers share one allowance of pipe pages: the first to splice would leave the next none.  Lifted meanwhile;
    False when that is not allowed."""
    before = read(str(PIPE_PAGES))
    try:
        PIPE_PAGES.write_text("0")
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        PIPE_PAGES.write_text(before)


def load() -> float:
    return os.getloadavg()[0]


def counts_instructions() -> bool:
    """Does ``perf stat -e instructions`` count here?  Most virtual machines hide the counters."""
    try:
        done = subprocess.run(
            ["perf", "stat", "-x,", "-e", "instructions", "true"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stderr[:1].isdigit()
