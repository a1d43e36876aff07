"""Two network namespaces joined by a veth pair: an appliance and its neighbour."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


def ip(*words: str) -> str:
    """Run the ``ip`` program."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def joined_pair(first: str, second: str) -> Iterator[None]:
    """Namespaces with those names; eth0 in both, 192.0.2.1 and .2, 2001:db8::1 and ::2, up and past detection."""
    try:
        for name in (first, second):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
        for number, name in enumerate((first, second), 1):
            ip("-n", name, "address", "add", f"192.0.2.{number}/24", "dev", "eth0")
            ip("-n", name, "address", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
            ip("-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in (first, second):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread's new sockets belong to the namespace."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _check(setns(there, _CLONE_NEWNET))
        yield
    finally:
        _check(setns(home, _CLONE_NEWNET))
        os.close(home)
        os.close(there)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "setns")
