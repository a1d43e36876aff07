"""Clients that move much data and keep its hash."""

from __future__ import annotations

import hashlib
import os
import socket
import threading

from servers import connect

MIB = 1 << 20
BLOCK = os.urandom(MIB)


def echo(port: int, source: str, mib: int) -> tuple[str, str]:
    with connect(port, source=source, timeout=60) as sock:
        return echo_on(sock, mib)


def echo_on(sock: socket.socket, mib: int) -> tuple[str, str]:
    """Send from a thread, then FIN; (hash of what was sent, hash of what came back)."""
    sent = hashlib.sha256()

    def send() -> None:
        for _ in range(mib):
            sock.sendall(BLOCK)
            sent.update(BLOCK)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = hash_all(sock)
    sender.join()
    return sent.hexdigest(), received


def hash_all(sock: socket.socket) -> str:
    digest = hashlib.sha256()
    while data := sock.recv(262_144):
        digest.update(data)
    return digest.hexdigest()
