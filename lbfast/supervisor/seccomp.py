"""The system calls of a worker: everything that serving clients needs, and nothing else.

A worker handles strangers' bytes in compiled code.  Whoever takes one over can send and receive on the sockets it
has, and open TCP connections; not open a file, start a program, load code, look into another process, open
another kind of socket, or raise a limit.  What is not on the list fails with EPERM, so a call that a new
C library makes on its own is refused instead of ending thousands of connections.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lbfast.supervisor.bpf import Check, Rules, assemble
from lbfast.supervisor.capabilities import forbid_new_privileges, prctl

_SET_MODE_FILTER = 1
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_SPEC_ALLOW = 4  # no code of strangers runs here: do not slow every branch down against it (kernels before 5.16)
_EPERM: Final = errno.EPERM

_TYPE_MASK = 0xF  # of a socket's type, without SOCK_NONBLOCK and SOCK_CLOEXEC
_PROT_EXEC = 4
_AT_EMPTY_PATH = 0x1000
_FIONREAD, _SIOCOUTQ, _FIONBIO = 0x541B, 0x5411, 0x5421
_FCNTL: Final = (1, 2, 3, 4, 1030, 1031, 1032)  # F_GETFD F_SETFD F_GETFL F_SETFL DUPFD_CLOEXEC SETPIPE_SZ GETPIPE_SZ


@dataclass(frozen=True)
class Machine:
    """An architecture: how the kernel calls it (AUDIT_ARCH_*), its numbers of the calls, the number of seccomp()."""

    arch: int
    numbers: Mapping[str, int]
    seccomp: int


# Calls without a word on their arguments.  Those that an architecture does not have are left out of its table.
_PLAIN: Final = (
    *("read", "write", "readv", "writev", "pread64", "close", "lseek", "fstat", "dup", "pipe2", "splice"),
    *("accept4", "connect", "bind", "shutdown", "getsockname", "getpeername", "setsockopt", "getsockopt"),
    *("sendto", "recvfrom", "sendmsg", "recvmsg"),
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "epoll_create1", "poll", "ppoll"),
    *("brk", "munmap", "mremap", "madvise"),
    *("clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "sched_yield", "futex", "getrandom", "rseq"),
    *("sched_setaffinity",),  # a commit pins workers, or no longer
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("getpid", "gettid", "exit", "exit_group"),
)

# fmt: off
_X86_64: Final = MappingProxyType({
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
    "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "readv": 19,
    "writev": 20, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39,
    "socket": 41, "connect": 42, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48,
    "bind": 49, "getsockname": 51, "getpeername": 52, "setsockopt": 54, "getsockopt": 55, "exit": 60, "kill": 62,
    "fcntl": 72, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202, "restart_syscall": 219,
    "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233,
    "tgkill": 234, "newfstatat": 262, "ppoll": 271, "splice": 275, "epoll_pwait": 281, "accept4": 288,
    "epoll_create1": 291, "pipe2": 293, "getrandom": 318, "rseq": 334, "epoll_pwait2": 441, "sched_setaffinity": 203,
})
_AARCH64: Final = MappingProxyType({
    "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "dup": 23, "fcntl": 25, "ioctl": 29, "close": 57,
    "pipe2": 59, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "ppoll": 73,
    "splice": 76, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101,
    "clock_gettime": 113, "clock_nanosleep": 115, "sched_yield": 124, "restart_syscall": 128, "kill": 129,
    "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
    "gettimeofday": 169, "getpid": 172, "gettid": 178, "socket": 198, "bind": 200, "connect": 203,
    "getsockname": 204, "getpeername": 205, "sendto": 206, "recvfrom": 207, "setsockopt": 208, "getsockopt": 209,
    "shutdown": 210, "sendmsg": 211, "recvmsg": 212, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222,
    "mprotect": 226, "madvise": 233, "accept4": 242, "getrandom": 278, "rseq": 293, "epoll_pwait2": 441,
    "sched_setaffinity": 122,
})
# fmt: on
MACHINES: Final = MappingProxyType(
    {"x86_64": Machine(0xC000003E, _X86_64, 317), "aarch64": Machine(0xC00000B7, _AARCH64, 277)}
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def worker_rules(numbers: Mapping[str, int], pid: int) -> Rules:
    """What a worker of that pid may call."""
    no_code = (Check(2, (0,), _PROT_EXEC),)
    families, protocols = (socket.AF_INET, socket.AF_INET6), (0, socket.IPPROTO_TCP)
    checked = {
        "socket": (Check(0, families), Check(1, (socket.SOCK_STREAM,), _TYPE_MASK), Check(2, protocols)),
        "mmap": no_code,
        "mprotect": no_code,
        "fcntl": (Check(1, _FCNTL),),
        "ioctl": (Check(1, (_FIONREAD, _SIOCOUTQ, _FIONBIO)),),
        "kill": (Check(1, (0,)),),  # is the owner of a bucket's lock alive?
        "tgkill": (Check(0, (pid,)),),  # abort()
        "newfstatat": (Check(3, (_AT_EMPTY_PATH,), _AT_EMPTY_PATH),),  # the C library's fstat
    }
    return Rules(
        frozenset(numbers[name] for name in _PLAIN if name in numbers),
        {numbers[name]: checks for name, checks in checked.items()},
    )


def this_machine() -> Machine | None:
    """None where no list of numbers was written: there a worker has no filter."""
    return MACHINES.get(platform.machine())


def confine_worker(machine: Machine | None, pid: int) -> str | None:
    """From now on, and for good, this process makes no other calls.

    Where there can be no filter, what an operator has to know: clients are served all the same, and that is said.
    """
    if machine is None:
        return f"workers have no system call filter: none is written for {platform.machine()}"
    steps = assemble(machine.arch, worker_rules(machine.numbers, pid), _EPERM)
    forbid_new_privileges()
    try:
        _attach(machine, _Program(len(steps) // 8, steps))
    except OSError as error:
        hint = "under systemd, SystemCallFilter= has to allow seccomp"
        return f"workers have no system call filter: the kernel refuses it ({error.strerror}); {hint}"
    return None


def _attach(machine: Machine, program: _Program) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_SPEC_ALLOW), ctypes.byref(program))
    if libc.syscall(ctypes.c_long(machine.seccomp), *words) != 0:
        # The older way to say it, for kernels and containers that do not have this call; it knows no flags.
        prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(program))
