"""A running lbfast whose configuration is changed, and clients that notice everything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import Lbfast, render_toml, scaled
from servers import TcpServer, connect, named_server, read_line

from lbfast.control.client import Client

NAMES = ("R1", "R2", "R3")


def text_of(services: Sequence[dict[str, Any]], **top: Any) -> str:
    return render_toml({"workers": 2, "log": {"target": "none"}} | top | {"virtual_service": list(services)})


def commit(lb: Lbfast, text: str, **args: Any) -> dict[str, Any]:
    """Commit a text directly, without the cost of a new Python."""
    client = Client(lb.runtime_dir / "control.sock", timeout=scaled(30))
    result: dict[str, Any] = client.call("commit", text=text, file="test.toml", **args)
    return result


def services_of(lb: Lbfast) -> dict[str, dict[str, Any]]:
    return {service["label"]: service for service in lb.call("overview")["virtual_services"]}


@contextmanager
def named_servers(names: Sequence[str] = NAMES) -> Iterator[dict[str, TcpServer]]:
    """Servers that say their name first, then echo."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(named_server(name)) for name in names}


@dataclass
class Load:
    """Clients in threads: short connections from many addresses, and long ones that keep talking."""

    port: int
    clients: int = 24
    long: int = 12
    failures: list[str] = field(default_factory=list)
    homes: dict[str, set[str]] = field(default_factory=dict)  # client address -> servers met
    visits: int = 0
    exchanges: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        for number in range(3):
            addresses = [f"127.5.{number}.{host + 1}" for host in range(self.clients // 3)]
            self._spawn(self._visit_again_and_again, addresses)
        self._spawn(self._talk, [f"127.6.0.{host + 1}" for host in range(self.long)])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(scaled(20))

    @property
    def split(self) -> dict[str, set[str]]:
        """Clients that met more than one server."""
        return {client: met for client, met in self.homes.items() if len(met) > 1}

    def _spawn(self, target: Any, addresses: list[str]) -> None:
        thread = threading.Thread(target=target, args=(addresses,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _visit_again_and_again(self, addresses: list[str]) -> None:
        while not self._stop.is_set():
            for address in addresses:
                self._visit(address)

    def _visit(self, address: str) -> None:
        try:
            with connect(self.port, source=address) as sock:
                self._met(address, read_line(sock))
                sock.sendall(b"ping\n")
                self._expect(address, read_line(sock), b"ping\n")
            self.visits += 1
        except OSError as error:
            self._failed(f"{address}: {error!r}")

    def _talk(self, addresses: list[str]) -> None:
        with ExitStack() as stack:
            try:
                socks = {it: stack.enter_context(connect(self.port, source=it)) for it in addresses}
                for address, sock in socks.items():
                    self._met(address, read_line(sock))
                while not self._stop.wait(0.02):
                    for address, sock in socks.items():
                        self._exchange(address, sock)
            except OSError as error:
                self._failed(f"long connection: {error!r}")

    def _exchange(self, address: str, sock: socket.socket) -> None:
        sock.sendall(b"still here\n")
        self._expect(address, read_line(sock), b"still here\n")
        self.exchanges += 1

    def _met(self, address: str, name: bytes) -> None:
        if not name.endswith(b"\n"):
            self._failed(f"{address}: no server, got {name!r}")
            return
        with self._lock:
            self.homes.setdefault(address, set()).add(name.decode().strip())

    def _expect(self, address: str, found: bytes, wanted: bytes) -> None:
        if found != wanted:
            self._failed(f"{address}: got {found!r}, not {wanted!r}")

    def _failed(self, text: str) -> None:
        with self._lock:
            self.failures.append(text)


def unharmed(load: Load) -> None:
    """Nobody noticed anything, and there was somebody."""
    assert load.failures == []
    assert load.split == {}
    assert load.visits > 20
    assert load.exchanges > 20


def write(directory: Path, text: str, name: str = "candidate.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path
