"""A storm of short connections: servers and clients in processes of their own, every failure counted.

Run as a program it is one such process, so it needs nothing but the standard library.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

BIG = b"x" * 200_000
_RST = struct.pack("ii", 1, 0)


class StormServer:
    """Answers one line with one line, or with 200 kB when asked for much, and closes; a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve"], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> StormServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass(frozen=True)
class Storm:
    """Clients in processes of their own; every connection that fails is counted."""

    port: int
    clients: int = 200
    processes: int = 2

    def run(self, connections: int, timeout: float = 60.0) -> int:
        """So many connections; how many failed."""
        share = connections // self.processes
        commands = [
            [sys.executable, __file__, "storm", str(self.port), str(share), str(self.clients), str(number)]
            for number in range(self.processes)
        ]
        with ThreadPoolExecutor(self.processes) as pool:
            return sum(pool.map(lambda command: _failures(command, timeout), commands))


def _failures(command: list[str], timeout: float) -> int:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
    return int(done.stdout)


def _serve() -> None:
    """Single-threaded; ends with its stdin."""
    selector = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    _accept(listener, selector)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    _answer(key.fileobj, selector)


def _accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        sock, _ = listener.accept()
    except OSError:
        return
    selector.register(sock, selectors.EVENT_READ)


def _answer(sock: socket.socket, selector: selectors.BaseSelector) -> None:
    selector.unregister(sock)
    with sock:
        try:
            asked = sock.recv(100)
            if asked:
                sock.settimeout(10)
                sock.sendall(BIG if asked.startswith(b"much") else b"little\n")
        except OSError:
            pass  # it was reset by its client: that is part of the storm


def _storm(port: int, connections: int, clients: int, number: int) -> int:
    """One after the other, from all addresses in turn; a tenth is reset after the answer has begun."""
    failed = 0
    for turn in range(connections):
        source = f"127.1.0.{turn % clients + 1}"
        try:
            failed += not _visit(port, source, much=turn % 8 == number, reset=turn % 10 == 3)
        except OSError:
            failed += 1
    return failed


def _visit(port: int, source: str, *, much: bool, reset: bool) -> bool:
    with socket.socket() as sock:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"much\n" if much else b"little\n")
        received = len(sock.recv(65_536))
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            return received > 0
        while data := sock.recv(262_144):
            received += len(data)
        return received == (len(BIG) if much else 7)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        print(_storm(*map(int, sys.argv[2:])))
    sys.stdout.flush()
    os._exit(0)
