"""Checked servers and clients as processes: who was refused, cut, split or given wrong bytes, phase by phase."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme

PROGRAM = Path(__file__).with_name("checked.py")
NAMES = ("R1", "R2", "R3")


@dataclass
class Seen:
    """What clients have seen between two looks."""

    new: int  # new connections that went well
    exchanges: int  # on those that stay
    refused: int  # new ones that never had a connection
    failed: list[list[Any]]  # new ones that had one and lost it
    cut: list[list[Any]]  # of those that stay
    damaged: int
    split: dict[str, list[str]]  # clients that met more than one server, since the start
    longest_ms: float  # of one exchange of those that stay
    longest_new_ms: float

    @property
    def is_clean(self) -> bool:
        return not (self.refused or self.failed or self.cut or self.damaged or self.split)


class _Process:
    """A part of checked.py that answers when it is asked."""

    def __init__(self, *args: object) -> None:
        command = [sys.executable, str(PROGRAM), *map(str, args)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args!r} has ended"
        return line

    def ask(self) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self.line())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@dataclass
class Servers:
    """Three of them, and what a client needs to trust them."""

    ports: dict[str, int] = field(default_factory=dict)
    ca: Path = Path()


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    ca = trustme.CA()
    cert = ca.issue_cert("localhost", "127.0.0.1")
    found = Servers(ca=folder / "ca.pem")
    ca.cert_pem.write_to_path(str(found.ca))
    cert.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    with ExitStack() as stack:
        for name in NAMES:
            process = _Process("serve", name, folder / "server.pem", folder / "server.pem", 0)
            stack.callback(process.stop)
            found.ports[name] = int(process.line())
        yield found


class Clients:
    """Running between ``with`` and its end."""

    def __init__(self, port: int, ca: Path, *, long: int = 200, every: float = 0.05, rate: float = 300) -> None:
        self._args = [("short", ca, port, rate), ("long", ca, port, long, every)]
        self._parts: list[_Process] = []
        self._done = [0, 0]
        self.total: list[Seen] = []

    def __enter__(self) -> Clients:
        self._parts = [_Process(*args) for args in self._args]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for part in self._parts:
            part.stop()

    def look(self) -> Seen:
        """What has happened since the last look."""
        short, long = (part.ask() for part in self._parts)
        done = [short["done"], long["done"]]
        new, exchanges = done[0] - self._done[0], done[1] - self._done[1]
        self._done = done
        every = [*short["failures"], *long["failures"]]
        seen = Seen(
            new,
            exchanges,
            sum(phase == "connect" for phase, *_ in every),
            [it for it in every if it[0] == "talk"],
            [it for it in every if it[0] == "cut"],
            sum(phase == "damaged" for phase, *_ in every),
            short["split"] | long["split"],
            long["longest"] * 1000,
            short["longest"] * 1000,
        )
        self.total.append(seen)
        return seen


def added(many: Iterable[Seen]) -> Seen:
    """Several looks as one."""
    looks = list(many)
    return Seen(
        sum(it.new for it in looks),
        sum(it.exchanges for it in looks),
        sum(it.refused for it in looks),
        [one for it in looks for one in it.failed],
        [one for it in looks for one in it.cut],
        sum(it.damaged for it in looks),
        looks[-1].split,
        max(it.longest_ms for it in looks),
        max(it.longest_new_ms for it in looks),
    )
