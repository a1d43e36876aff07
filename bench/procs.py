"""What processes cost: CPU time, memory and machine time, read from /proc for whole process trees."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0


def process_tree(pid: int) -> list[int]:
    """The process and everything below it; threads that fork count too."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = children.read_text().split()
        except OSError:
            continue
        for child in below:
            found += process_tree(int(child))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all threads, in nanosecond steps (schedstat), not in the 10 ms ticks of stat."""
    total = 0
    for pid in pids:
        for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(schedstat.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def pss_kb(pids: Iterable[int]) -> int:
    """Proportional set size: shared pages are split between those who map them, so a sum is honest."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


@dataclass(frozen=True)
class MachineTime:
    """Seconds since boot that all cores together spent working, and that the host took away."""

    busy: float
    stolen: float

    @classmethod
    def now(cls) -> MachineTime:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
        tick = os.sysconf("SC_CLK_TCK")
        return cls((user + nice + system + irq + softirq) / tick, steal / tick)


class Ports:
    """Free ports below the range that connecting sockets take theirs from, so that no client of ours gets one first."""

    def __init__(self) -> None:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        # Not the same ones as another run beside this one: with SO_REUSEPORT both would get half of the clients.
        self.next = lowest - os.getpid() % 97 * 100

    def take(self) -> int:
        while self.next > 10_000:
            self.next -= 1
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", self.next))
                except OSError:
                    continue
                return self.next
        raise RuntimeError("no free port on 127.0.0.1 from 10000 up to where connecting sockets take theirs")


def wait_until(is_done: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.01)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Program:
    """One real process (with its children) and its files, from start to stop."""

    def __init__(self, label: str, command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.label = label
        self.log = folder / "output"
        self.folder = folder
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=env
            )

    def wait_accepting(self, ports: Sequence[int]) -> None:
        def is_up() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.label} ended with {self.process.returncode}:\n{self.said()}")
            return all(accepts(port) for port in ports)

        try:
            wait_until(is_up, f"{self.label} to accept on {list(ports)}")
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.said()}") from error

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def pids(self) -> list[int]:
        return process_tree(self.process.pid)

    def stop(self) -> None:
        """SIGTERM and, when that does not help, SIGKILL to the whole tree."""
        pids = self.pids()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait(STOP_TIMEOUT)
        shutil.rmtree(self.folder, ignore_errors=True)
