"""Kills a process right behind one system call: by ptrace, so that nothing of the process has to know of it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import time

from waiting import scaled

_SEIZE, _INTERRUPT, _SYSCALL, _SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
_TRACESYSGOOD = 1
_ENTRY, _EXIT = 1, 2
_INFO = struct.Struct("B3xIQQ7Q")
NUMBERS = {"x86_64": {"sendmsg": 46, "recvmsg": 47}, "aarch64": {"sendmsg": 211, "recvmsg": 212}}


def number_of(call: str) -> int | None:
    """None on a machine whose numbers are not known here."""
    return NUMBERS.get(platform.machine(), {}).get(call)


class Trap:
    """Of a child of ours.  All calls must come from the thread that made it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]
        self._trace(_SEIZE, 0, _TRACESYSGOOD)
        self._trace(_INTERRUPT)
        os.waitpid(pid, 0)
        self._go_on()

    def kill_behind(self, number: int) -> None:
        """Let it run until that call has succeeded, and kill it before its next instruction; it is not reaped."""
        entered, given_up_at = -1, time.monotonic() + scaled(20)
        while True:
            assert time.monotonic() < given_up_at, "it never came there"
            _, status = os.waitpid(self._pid, 0)
            assert os.WIFSTOPPED(status), f"it ended before, with {status}"
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                kind, value = self._info()
                if kind == _EXIT and entered == number and value >= 0:
                    os.kill(self._pid, signal.SIGKILL)
                    return
                entered = value if kind == _ENTRY else -1
            self._go_on()

    def _info(self) -> tuple[int, int]:
        """Entry or exit, and the call's number or its result."""
        buffer = ctypes.create_string_buffer(_INFO.size)
        self._trace(_SYSCALL_INFO, _INFO.size, ctypes.addressof(buffer))
        kind, _, _, _, first, *_ = _INFO.unpack(buffer.raw)
        return kind, first - (1 << 64 if first >> 63 else 0)

    def _go_on(self) -> None:
        self._trace(_SYSCALL)

    def _trace(self, request: int, address: int = 0, data: int = 0) -> None:
        if self._libc.ptrace(request, self._pid, address, data) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of process {self._pid}")
