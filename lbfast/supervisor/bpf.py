"""A system call filter as a classic BPF program: what is allowed goes in, instructions come out.  Pure.

Calls that are allowed whatever their arguments are decided by their number alone: the kernel (5.11 and newer) sees
that when the filter is attached and then answers them from a bitmap, without running the program.  So the calls
of every turn of the loop cost nothing; only those with rules about arguments run it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL = 0x15
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ALL_BITS: Final = 0xFFFFFFFF
MOST_INSTRUCTIONS: Final = 4096


@dataclass(frozen=True)
class Check:
    """An argument (0 to 5), cut to ``mask``, is one of ``values``.

    Only the lower 32 bits are looked at: the kernel takes these arguments as int.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = _ALL_BITS


@dataclass(frozen=True)
class Rules:
    """Numbers that are allowed as they are; and those that are if all their checks hold."""

    allowed: Collection[int]
    checked: Mapping[int, Sequence[Check]]


def assemble(arch: int, rules: Rules, error: int) -> bytes:
    """The program: another architecture's calls kill, what no rule allows fails with ``error``."""
    refuse = _step(_RETURN, _ERRNO | error)
    allow = _step(_RETURN, _ALLOW)
    program = [_step(_LOAD, _ARCH), _step(_IF_EQUAL, arch, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER)]
    for number in sorted(rules.allowed):
        program += [_step(_IF_EQUAL, number, 0, 1), allow]
    for number, checks in sorted(rules.checked.items()):
        body = [step for check in checks for step in _body(check, refuse)] + [allow]
        program += [_step(_IF_EQUAL, number, 0, len(body)), *body]
    program.append(refuse)
    if len(program) > MOST_INSTRUCTIONS:
        raise ValueError(f"a filter of {len(program)} instructions, the kernel takes {MOST_INSTRUCTIONS}")
    return b"".join(program)


def _body(check: Check, refuse: bytes) -> list[bytes]:
    """Goes on behind its last instruction when the check holds."""
    steps = [_step(_LOAD, _ARGUMENTS + 8 * check.argument)]
    if check.mask != _ALL_BITS:
        steps.append(_step(_AND, check.mask))
    count = len(check.values)
    steps += [_step(_IF_EQUAL, value, count - place, 0) for place, value in enumerate(check.values)]
    return [*steps, refuse]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
