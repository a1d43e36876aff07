"""What the supervisor keeps for the ha process: a successor, forked from it, must not have it twice."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from lbfast.supervisor.bodies import HA
from lbfast.supervisor.ha_line import HaLine


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def opened() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if is_open(int(name))}


@pytest.fixture
def fds() -> Any:
    found = [os.memfd_create("test") for _ in range(3)]
    yield found
    for fd in found:
        os.close(fd)


def test_a_new_child_keeps_nothing_of_it(fds: list[int]) -> None:
    nothing: Any = SimpleNamespace()
    line = HaLine(nothing, nothing, nothing, lambda _text: None)
    child: Any = SimpleNamespace(name=HA)
    before = opened()
    assert line.hears(child, {"event": "moving", "role": "given", "at": 1}, fds[:1])
    assert line.hears(child, {"event": "entrust"}, fds[1:])
    assert len(opened() - before) == 3
    line.forget()
    assert opened() == before


def test_what_a_note_knows_is_entrusted_no_more(fds: list[int]) -> None:
    sent: list[tuple[dict[str, Any], int]] = []
    nothing: Any = SimpleNamespace()
    line = HaLine(nothing, nothing, nothing, lambda _text: None)
    channel = SimpleNamespace(send_now=lambda message, handed: sent.append((message, len(handed))))
    child: Any = SimpleNamespace(name=HA, channel=channel)
    before = opened()
    line.hears(child, {"event": "moving", "role": "given", "at": 1}, fds[:1])
    line.hears(child, {"event": "entrust"}, fds[1:])
    line.hears(child, {"event": "entrust"}, [])
    line.hears(child, {"event": "entrust"}, fds[1:2])
    line.hears(child, {"event": "recover"}, [])
    assert [(message["role"], count) for message, count in sent] == [("given", 2)]
    assert opened() == before, "the successor has it now"
    line.hears(child, {"event": "recover"}, [])
    assert len(sent) == 1
