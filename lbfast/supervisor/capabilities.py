"""What the kernel lets this process do: capability sets, no_new_privs, core dumps.  Thin over prctl and capset."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Collection, Iterator
from enum import IntEnum
from pathlib import Path

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 4, 8
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """Those that lbfast looks for, as linux/capability.h numbers them."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21
    SYS_NICE = 23
    SYS_RESOURCE = 24


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held() -> frozenset[int]:
    """The effective capabilities of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return frozenset(_numbers(int(line.split()[1], 16)))
    return frozenset()


def has(capability: Capability) -> bool:
    return capability in held()


def become_user(uid: int, gid: int) -> None:
    """Change to a user for good, without supplementary groups; capabilities stay until ``keep_only``."""
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    prctl(_PR_SET_KEEPCAPS, 0)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise PermissionError(f"the kernel did not make this process user {uid}, group {gid}")


def shrink_bounds(keep: Collection[int]) -> None:
    """Take capabilities away from whatever this process may ever execute; nothing without CAP_SETPCAP."""
    if not has(Capability.SETPCAP):
        return
    number = 0
    while (bound := _read_bound(number)) >= 0:
        if bound and number not in keep:
            prctl(_PR_CAPBSET_DROP, number)
        number += 1


def keep_only(keep: Collection[int]) -> None:
    """Give up every capability but these; those of them that the process does not have are not got by it."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    words = (_Word * 2)()
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _call(_libc().capget(ctypes.byref(header), words), "capget")
    for place, word in enumerate(words):
        mask = sum(1 << (number - 32 * place) for number in keep if number // 32 == place)
        word.permitted &= mask
        word.effective = word.permitted
        word.inheritable = 0
    _call(_libc().capset(ctypes.byref(header), words), "capset")


def forbid_new_privileges() -> None:
    """From now on no execve gives this process or its children more than they have: no setuid program, no file's."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_core() -> None:
    """No core file, and no other process of the same user may look into this one's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)


def prctl(option: int, *arguments: int) -> int:
    """The call; OSError when it is refused."""
    words = [*map(ctypes.c_ulong, arguments), *(ctypes.c_ulong(0) for _ in range(4 - len(arguments)))]
    return _call(_libc().prctl(option, *words), "prctl")


def _read_bound(number: int) -> int:
    """1 or 0; -1 beyond the last capability that this kernel knows."""
    return int(_libc().prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), *(ctypes.c_ulong(0) for _ in range(3))))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _numbers(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
