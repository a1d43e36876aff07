"""The worker's system call filter as a program: run by a small interpreter, on every architecture that has a table."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.supervisor.bpf import Check, Rules, assemble
from lbfast.supervisor.seccomp import MACHINES, Machine, worker_rules

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
PID = 4711
X86, ARM = MACHINES["x86_64"], MACHINES["aarch64"]


def run(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer."""
    words = [argument & (1 << 64) - 1 for argument in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("=iIQ6Q", number, arch, 0, *words)
    steps = list(struct.iter_unpack("=HBBI", program))
    held, place = 0, 0
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == 0x20:
            assert value % 4 == 0
            held = struct.unpack_from("=I", data, value)[0]
        elif code == 0x54:
            held &= value
        elif code == 0x15:
            place += if_true if held == value else if_false
        elif code == 0x06:
            return int(value)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def filter_of(machine: Machine) -> bytes:
    return assemble(machine.arch, worker_rules(machine.numbers, PID), errno.EPERM)


@pytest.mark.parametrize("machine", [X86, ARM])
def test_what_a_worker_does_all_day_is_decided_by_number_alone(machine: Machine) -> None:
    """The kernel's bitmap of answers wants that: no argument may be looked at before the verdict."""
    rules = worker_rules(machine.numbers, PID)
    hot = ["recvfrom", "sendto", "splice", "accept4", "connect", "close", "epoll_ctl", "epoll_pwait", "setsockopt"]
    assert {machine.numbers[name] for name in hot} <= set(rules.allowed)
    assert not set(rules.allowed) & set(rules.checked)
    for number in rules.allowed:
        assert run(filter_of(machine), machine.arch, number, *[0xDEAD] * 6) == ALLOW


@pytest.mark.parametrize("machine", [X86, ARM])
def test_everything_else_is_refused(machine: Machine) -> None:
    rules, program = worker_rules(machine.numbers, PID), filter_of(machine)
    for number in range(600):
        if number not in rules.allowed and number not in rules.checked:
            assert run(program, machine.arch, number) == REFUSE, number
    assert run(program, machine.arch, 0x40000000 | machine.numbers["read"]) == REFUSE  # x32


def test_calls_of_another_architecture_kill() -> None:
    """The 32-bit entry of an x86_64 kernel has other numbers for the same calls."""
    assert run(filter_of(X86), 0x40000003, 11) == KILL
    assert run(filter_of(X86), ARM.arch, X86.numbers["read"]) == KILL


TCP, UDP, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
OPEN = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
CASES = [
    ("socket", (socket.AF_INET, TCP | OPEN, 0), ALLOW),
    ("socket", (socket.AF_INET6, TCP, socket.IPPROTO_TCP), ALLOW),
    ("socket", (socket.AF_INET, UDP, 0), REFUSE),
    ("socket", (socket.AF_INET, RAW | OPEN, 1), REFUSE),
    ("socket", (socket.AF_INET, TCP, 132), REFUSE),
    ("socket", (socket.AF_UNIX, TCP, 0), REFUSE),
    ("socket", (socket.AF_NETLINK, RAW, 0), REFUSE),
    ("socket", (socket.AF_PACKET, RAW, 0), REFUSE),
    ("mmap", (0, 4096, 3, 0x22), ALLOW),
    ("mmap", (0, 4096, 5, 0x22), REFUSE),
    ("mprotect", (0, 4096, 1), ALLOW),
    ("mprotect", (0, 4096, 7), REFUSE),
    ("fcntl", (3, 1031, 1 << 20), ALLOW),
    ("fcntl", (3, 8, PID), REFUSE),  # F_SETOWN: who gets SIGIO
    ("ioctl", (3, 0x541B), ALLOW),
    ("ioctl", (0, 0x5412), REFUSE),  # TIOCSTI: type into the operator's terminal
    ("kill", (1, 0), ALLOW),
    ("kill", (1, 9), REFUSE),
    ("tgkill", (PID, PID, 6), ALLOW),
    ("tgkill", (PID + 1, PID + 1, 6), REFUSE),
    ("newfstatat", (3, 0, 0, 0x1000), ALLOW),
    ("newfstatat", (-100, 0, 0, 0), REFUSE),
]


@pytest.mark.parametrize(("name", "arguments", "verdict"), CASES)
@pytest.mark.parametrize("machine", [X86, ARM])
def test_arguments(machine: Machine, name: str, arguments: tuple[int, ...], verdict: int) -> None:
    assert run(filter_of(machine), machine.arch, machine.numbers[name], *arguments) == verdict


words = st.integers(0, (1 << 32) - 1)
checks = st.builds(Check, st.integers(0, 5), st.lists(words, min_size=1, max_size=4).map(tuple), words)


@given(
    allowed=st.frozensets(st.integers(0, 20)),
    checked=st.dictionaries(st.integers(21, 40), st.lists(checks, max_size=3), max_size=5),
    number=st.integers(0, 41),
    arguments=st.lists(words, min_size=6, max_size=6),
)
def test_a_program_does_what_its_rules_say(
    allowed: frozenset[int], checked: dict[int, list[Check]], number: int, arguments: list[int]
) -> None:
    program = assemble(X86.arch, Rules(allowed, checked), errno.EPERM)
    holds = all(arguments[check.argument] & check.mask in check.values for check in checked.get(number, ()))
    is_allowed = number in allowed or (number in checked and holds)
    assert run(program, X86.arch, number, *arguments) == (ALLOW if is_allowed else REFUSE)


def test_too_long_a_program_is_refused() -> None:
    with pytest.raises(ValueError, match="the kernel takes 4096"):
        assemble(X86.arch, Rules(range(2100), {}), errno.EPERM)
