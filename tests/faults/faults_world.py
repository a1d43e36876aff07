"""A running lbfast with named servers, its log, and clients that stay."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness import Lbfast, free_port, json_lines, real_server, virtual_service, wait_for
from servers import TcpServer, connect, named_server, read_line

T = TypeVar("T")

NAMES = ("One", "Two", "Three")


@dataclass
class World:
    lb: Lbfast
    port: int
    servers: dict[str, TcpServer]
    log_file: Path

    def log(self) -> list[dict[str, Any]]:
        return json_lines(self.log_file)

    def told(self, *words: str) -> str:
        """The event whose message has all these words, or nothing yet."""
        messages = (str(record.get("message", "")) for record in self.log())
        return next((message for message in messages if all(word in message for word in words)), "")

    def wait_told(self, *words: str, timeout: float = 30.0) -> str:
        return wait_for(lambda: self.told(*words), timeout, f"an event with {words}")

    def ended(self, how: str) -> list[dict[str, Any]]:
        return [record for record in self.log() if record.get("ended") == how]

    def service(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lb.call("overview")["virtual_services"][0]
        return found

    def connections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lb.call("connections", service="Symphony")["connections"]
        return found


@contextmanager
def world(
    directory: Path, servers: dict[str, TcpServer] | None = None, lbfast: dict[str, Any] | None = None, **settings: Any
) -> Iterator[World]:
    """``settings`` of the virtual service; ``lbfast`` are arguments of ``Lbfast``."""
    with ExitStack() as stack:
        if servers is None:
            servers = {name: stack.enter_context(named_server(name)) for name in NAMES}
        port = free_port()
        log_file = directory / "records.log"
        config = {
            "workers": 2,
            "log": {"target": "file", "file": str(log_file), "rate_limit": 0},
            "virtual_service": [
                virtual_service(port, [real_server(name, it.port) for name, it in servers.items()], **settings)
            ],
        }
        lb = stack.enter_context(Lbfast(config, directory=directory, allow_stderr=True, **(lbfast or {})))
        yield World(lb, port, servers, log_file)


class Held:
    """A connection that stays open."""

    def __init__(self, stack: ExitStack, port: int, source: str, address: str = "127.0.0.1") -> None:
        self.sock: socket.socket = stack.enter_context(connect(port, source=source, address=address))
        self.source = source
        self.port: int = self.sock.getsockname()[1]
        self.name = read_line(self.sock).decode().strip()

    def is_alive(self) -> bool:
        try:
            self.sock.sendall(b"still there?\n")
            return read_line(self.sock) == b"still there?\n"
        except OSError:
            return False


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """The result, and how long it took."""
    begun = time.monotonic()
    result = action()
    return result, time.monotonic() - begun
