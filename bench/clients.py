"""Clients that wrk is not: uploads, idle connections, slow readers, large images.  One process, one JSON line.

    python -m bench.clients upload PORT CONNECTIONS SECONDS
    python -m bench.clients idle PORT COUNT              (says "ready", ends after a line or the end of its input)
    python -m bench.clients slow PORT CONNECTIONS BYTES_PER_SECOND SECONDS FILE
    python -m bench.clients images PORT PER_SECOND SECONDS FILE

Every byte that comes back is compared with what it must be.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MB = 1 << 20
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER 0: closing sends RST and leaves nothing in TIME_WAIT


def connect(port: int, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    return sock


# --- uploads --------------------------------------------------------------------------------------


def upload(port: int, connections: int, seconds: float) -> dict[str, Any]:
    """Each connection sends until the time is over, then compares its count with the sink's."""
    data = os.memfd_create("upload")
    os.write(data, b"N" + random.Random(2).randbytes(MB - 1))
    deadline = time.monotonic() + seconds
    sent, errors = [0] * connections, [0] * connections

    def work(index: int) -> None:
        try:
            with connect(port) as sock:
                while time.monotonic() < deadline:
                    sent[index] += send_all(sock, data)
                sock.shutdown(socket.SHUT_WR)
                counted = sock.recv(64, socket.MSG_WAITALL)
        except OSError:
            counted = b""
        errors[index] = int.from_bytes(counted[:8], "big") != sent[index]

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"bytes": sum(sent), "seconds": time.monotonic() - began, "errors": sum(errors), "wrong": 0}


def send_all(sock: socket.socket, data: int) -> int:
    """One megabyte, without copying it in this process."""
    offset = 0
    while offset < MB:
        try:
            offset += os.sendfile(sock.fileno(), data, offset, MB - offset)
        except BlockingIOError:
            select.select([], [sock], [], 10)
    return offset


# --- idle connections -----------------------------------------------------------------------------


def exchange(socks: list[socket.socket]) -> int:
    """A short message and its echo on each; how many failed."""
    failed = 0
    for number, sock in enumerate(socks):
        message = b"%08d hello, are you there" % number
        try:
            sock.sendall(message)
            failed += sock.recv(len(message), socket.MSG_WAITALL) != message
        except OSError:
            failed += 1
    return failed


def idle(port: int, count: int) -> dict[str, Any]:
    """Connections that each said something once; asked again at the end, so that none was lost meanwhile."""
    socks: list[socket.socket] = []
    errors = 0
    began = time.monotonic()
    for _ in range(count):
        try:
            socks.append(connect(port))
        except OSError:
            errors += 1
    errors += exchange(socks)
    opened_in = time.monotonic() - began
    print("ready", flush=True)
    sys.stdin.readline()
    errors += exchange(socks)
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
    return {"connections": len(socks), "opened_in": opened_in, "errors": errors, "wrong": 0}


# --- slow readers and images ----------------------------------------------------------------------


def begin_get(sock: socket.socket, path: str) -> bytes:
    """Ask, and read the head; what came of the body with it."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    came = b""
    while b"\r\n\r\n" not in came:
        piece = sock.recv(1024)
        if not piece:
            raise ConnectionError("closed before the head of the answer")
        came += piece
    if not came.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"expected status 200, found {came[:40]!r}")
    return came.partition(b"\r\n\r\n")[2]


@dataclass
class Reader:
    """A slow one: what came with the head, and how far it has read."""

    sock: socket.socket
    first: bytes
    at: int = 0


def slow(port: int, connections: int, rate: int, seconds: float, file: Path) -> dict[str, Any]:
    """Each connection reads at ``rate`` bytes a second in ten steps a second, from a small receive buffer."""
    content, step = file.read_bytes(), rate // 10
    readers: list[Reader] = []
    errors, wrong = 0, 0
    for _ in range(connections):
        sock = connect(port, receive_buffer=32768)
        readers.append(Reader(sock, begin_get(sock, f"/{file.name}")))
    print("ready", flush=True)
    began, total, late = time.monotonic(), 0, 0
    for turn in range(int(seconds * 10)):
        pause = began + turn / 10 - time.monotonic()
        late += pause < -0.05
        time.sleep(max(0.0, pause))
        for reader in readers:
            try:
                piece = reader.first or reader.sock.recv(step, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                errors += 1
                continue
            reader.first = b""
            wrong += not piece or piece != content[reader.at : reader.at + len(piece)]
            reader.at += len(piece)
            total += len(piece)
    took = time.monotonic() - began
    for reader in readers:
        reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        reader.sock.close()
    return {"bytes": total, "seconds": took, "errors": errors, "wrong": wrong, "late_turns": late}


def images(port: int, per_second: float, seconds: float, file: Path) -> dict[str, Any]:
    """Large answers at fixed moments over one connection; each compared with the file."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        buffer = bytearray(len(content))
        count, wrong, took = int(per_second * seconds), 0, []
        with connect(port) as sock:
            began = time.monotonic()
            for number in range(count):
                time.sleep(max(0.0, began + number / per_second - time.monotonic()))
                asked = time.monotonic()
                first = begin_get(sock, f"/{file.name}")
                buffer[: len(first)] = first
                receive_rest(sock, memoryview(buffer), len(first))
                took.append(time.monotonic() - asked)
                wrong += buffer != content[:]
        took.sort()
        return {
            "bytes": count * len(content),
            "seconds": time.monotonic() - began,
            "errors": 0,
            "wrong": wrong,
            "image_p50_ms": 1000 * took[len(took) // 2],
        }


def receive_rest(sock: socket.socket, view: memoryview, at: int) -> None:
    while at < len(view):
        size = sock.recv_into(view[at:])
        if size == 0:
            raise ConnectionError(f"closed after {at} of {len(view)} bytes")
        at += size


def main(words: list[str]) -> None:
    verb, *args = words
    if verb == "upload":
        result = upload(int(args[0]), int(args[1]), float(args[2]))
    elif verb == "idle":
        result = idle(int(args[0]), int(args[1]))
    elif verb == "slow":
        result = slow(int(args[0]), int(args[1]), int(args[2]), float(args[3]), Path(args[4]))
    elif verb == "images":
        result = images(int(args[0]), float(args[1]), float(args[2]), Path(args[3]))
    else:
        sys.exit(f"bench.clients: unknown client {verb!r}: expected upload, idle, slow or images")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
