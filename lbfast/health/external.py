"""Run an operator's check script: VIP VPORT RIP RPORT, exit 0 = up, killed with its children at the timeout.

The script gets a session (and so a process group) of its own; when it ends or
its time is up the whole group is killed, so nothing it started stays behind.
It is waited for by pidfd: no thread, no SIGCHLD.  Standard output is thrown
away, of standard error the first lines are kept.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

from lbfast.health.outcome import LOCAL_ERRNOS, ProbeFailed, ProbeUnmade, os_reason
from lbfast.health.spec import ProbeSpec
from lbfast.health.text import clean, fit

MAX_KEPT = 4_096  # bytes of standard error that are kept
MAX_READ = 1_048_576  # beyond that the script writes into a closed pipe
KILL_WAIT_S = 0.2
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


async def run_script(spec: ProbeSpec) -> str:
    """What was seen (``exit 0``), or ProbeFailed.  Cancel it at the timeout."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(reading, False)
        try:
            process = _start(spec, writing)
        finally:
            os.close(writing)
        errors = _Errors(reading)
        try:
            await _wait_exit(process, errors)
        finally:
            _kill_group(process)
        errors.read()
    finally:
        os.close(reading)
    return _judge(process.returncode, errors.first_line())


def _start(spec: ProbeSpec, errors: int) -> subprocess.Popen[bytes]:
    script = spec.script or ""
    arguments = [script, spec.vip, str(spec.vport), spec.address, str(spec.port)]
    try:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        reason = os_reason(f"script {script}", error)
        if error.errno in LOCAL_ERRNOS:
            raise ProbeUnmade(reason) from error
        raise ProbeFailed(f"{reason} (it should be an executable file with a #! line)") from error


async def _wait_exit(process: subprocess.Popen[bytes], errors: _Errors) -> None:
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(process.pid)
    try:
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pidfd, lambda: None if ended.done() else ended.set_result(None))
        loop.add_reader(errors.fd, errors.read_some, loop)
        try:
            await ended
        finally:
            loop.remove_reader(pidfd)
            loop.remove_reader(errors.fd)
    finally:
        os.close(pidfd)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """To be called before the script is reaped: until then its number cannot belong to another group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait(KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        pass  # stuck in the kernel (a dead network file system): reaped when a later script is started


def _judge(code: int, errors: str) -> str:
    said = f": {errors}" if errors else ""
    if code == 0:
        return f"script exit 0{said}"
    if code < 0:
        raise ProbeFailed(f"script killed by {signal.Signals(-code).name}{said}")
    raise ProbeFailed(f"script exit {code}{said}")


class _Errors:
    """The reading end of the script's standard error (not owned)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._kept = bytearray()
        self._total = 0

    def read_some(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self.read() or self._total > MAX_READ:
            loop.remove_reader(self.fd)

    def read(self) -> bool:
        """Whether more may come."""
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return True
        self._total += len(data)
        self._kept += data[: MAX_KEPT - len(self._kept)]
        return bool(data)

    def first_line(self) -> str:
        lines = bytes(self._kept).decode("utf-8", "replace").splitlines()
        return next((fit(clean(line), 120) for line in lines if clean(line)), "")
