"""TLS clients that check every byte, and the servers they talk to: each a process of its own, standard library only.

checked.py serve NAME CERT KEY PORT               a server that says its name, then echoes; ends with its stdin
checked.py long CA PORT COUNT SECONDS             connections that stay, an exchange every SECONDS on each
checked.py short CA PORT RATE                     new connections a second, from addresses that come again

The last two answer each line on stdin with one line of JSON: what they have seen so far.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import ssl
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

TIMEOUT = 10.0
THREADS = 24
ADDRESSES = 120
_BIND_ADDRESS_NO_PORT = 24
_NOISE = random.Random(4).randbytes(1 << 16)
_WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Tally:
    """What clients have seen; every failure with its phase, its error, its address and port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done = 0
        self.longest = 0.0  # seconds from the first byte of an exchange to the last
        self.failures: list[tuple[str, str, str, int]] = []
        self.homes: dict[str, set[str]] = defaultdict(set)

    def finish(self, took: float) -> None:
        with self._lock:
            self.done += 1
            self.longest = max(self.longest, took)

    def meet(self, source: str, name: str) -> None:
        with self._lock:
            self.homes[source].add(name)

    def fail(self, phase: str, error: str, source: str, port: int) -> None:
        with self._lock:
            self.failures.append((phase, error, source, port))

    def report(self) -> dict[str, Any]:
        """``failures`` and ``longest`` since the last report; ``done`` and ``split`` since the start."""
        with self._lock:
            failures, self.failures = self.failures, []
            longest, self.longest = self.longest, 0.0
            split = {source: sorted(names) for source, names in self.homes.items() if len(names) > 1}
            return {"done": self.done, "failures": failures, "longest": longest, "split": split}


def message(number: int) -> bytes:
    """Of a size and at a place in the noise that both depend on the number: what is lost, doubled or moved is seen."""
    start = number * 7919 % 60_000
    return _NOISE[start : start + 40 + number * 131 % 3000]


# --- server ---------------------------------------------------------------------------------------


@dataclass
class _Peer:
    sock: ssl.SSLSocket
    is_greeted: bool = False
    out: bytearray = field(default_factory=bytearray)


def serve(name: str, cert: str, key: str, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(listener.getsockname()[1], flush=True)
    while True:
        for key_, _ in selector.select():
            if key_.fileobj is sys.stdin:
                return
            if key_.fileobj is listener:
                _accept(listener, context, selector)
            else:
                _turn(key_.data, selector, f"{name}\n".encode())


def _accept(listener: socket.socket, context: ssl.SSLContext, selector: selectors.BaseSelector) -> None:
    try:
        raw, _ = listener.accept()
    except OSError:
        return
    raw.setblocking(False)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
    selector.register(sock, selectors.EVENT_READ, _Peer(sock))


def _turn(peer: _Peer, selector: selectors.BaseSelector, greeting: bytes) -> None:
    wanted = selectors.EVENT_READ
    try:
        _talk(peer, greeting)
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLWantWriteError:
        wanted |= selectors.EVENT_WRITE
    except OSError:
        _forget(peer.sock, selector)
        return
    selector.modify(peer.sock, wanted, peer)


def _talk(peer: _Peer, greeting: bytes) -> None:
    """Until something has to be waited for, which is raised; EOFError's kin for the end."""
    if not peer.is_greeted:
        peer.sock.do_handshake()
        peer.is_greeted = True
        peer.out += greeting
    while True:
        while peer.out:
            del peer.out[: peer.sock.send(peer.out)]
        data = peer.sock.recv(65_536)
        if not data:
            raise ConnectionResetError("the end")
        peer.out += data


def _forget(sock: ssl.SSLSocket, selector: selectors.BaseSelector) -> None:
    selector.unregister(sock)
    sock.close()


# --- clients --------------------------------------------------------------------------------------


def _context(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def _open(context: ssl.SSLContext, port: int, source: str, tally: Tally) -> tuple[ssl.SSLSocket, str] | None:
    """A connection whose server has said its name; or None, and the failure counted."""
    raw = socket.socket()
    raw.settimeout(TIMEOUT)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    raw.bind((source, 0))
    phase, mine = "connect", 0
    try:
        raw.connect(("127.0.0.1", port))
        phase, mine = "talk", raw.getsockname()[1]
        sock = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
        name = sock.recv(100)
        if not name.endswith(b"\n"):
            raise ConnectionResetError(f"no server, but {name!r}")
    except OSError as error:
        raw.close()
        tally.fail(phase, repr(error), source, mine)
        return None
    tally.meet(source, name.decode().strip())
    return sock, name.decode().strip()


def visit(context: ssl.SSLContext, port: int, source: str, number: int, tally: Tally) -> None:
    """One new connection: two exchanges, then a clean end."""
    started = time.monotonic()
    opened = _open(context, port, source, tally)
    if opened is None:
        return
    sock, _ = opened
    mine = sock.getsockname()[1]
    with sock:
        try:
            for text in (message(number), message(number + 1)):
                sock.sendall(text)
                if (found := _read(sock, len(text))) != text:
                    tally.fail("damaged", f"{len(found)} of {len(text)} bytes, or others", source, mine)
                    return
        except OSError as error:
            tally.fail("talk", repr(error), source, mine)
            return
    tally.finish(time.monotonic() - started)


def _read(sock: ssl.SSLSocket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        data = sock.recv(size - len(found))
        if not data:
            raise ConnectionResetError(f"ended after {len(found)} of {size} bytes")
        found += data
    return bytes(found)


def short(ca: str, port: int, rate: float, tally: Tally) -> None:
    """Open loop: connection N begins at N / rate, whatever the others do."""
    lock, begun, turn = threading.Lock(), time.monotonic(), [0]

    def run() -> None:
        context = _context(ca)
        while True:
            with lock:
                number = turn[0]
                turn[0] += 1
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            visit(context, port, f"127.7.1.{number % ADDRESSES + 1}", number, tally)

    for _ in range(THREADS):
        threading.Thread(target=run, daemon=True).start()


@dataclass
class _Talker:
    source: str
    sock: ssl.SSLSocket
    port: int
    due: float
    waits_for: bytes = b""
    got: bytearray = field(default_factory=bytearray)
    began: float = 0.0


class Talkers:
    """Connections that stay.  One that is cut is counted and opened again."""

    def __init__(self, ca: str, port: int, count: int, every: float, tally: Tally) -> None:
        self._context, self._port, self._every, self._tally = _context(ca), port, every, tally
        self._selector = selectors.DefaultSelector()
        self._number = 0
        self._talkers: list[_Talker] = []
        for at in range(count):
            self._begin(f"127.7.{2 + at // 200}.{at % 200 + 1}", time.monotonic() + every * at / count)

    def run(self) -> None:
        while True:
            now = time.monotonic()
            for talker in list(self._talkers):
                if now >= talker.due and not talker.waits_for:
                    self._send(talker, now)
                elif talker.waits_for and now - talker.began > TIMEOUT:
                    self._lose(talker, "no answer")
            soonest = min((it.due for it in self._talkers if not it.waits_for), default=now + 0.01)
            for key, _ in self._selector.select(min(0.01, max(0.0, soonest - time.monotonic()))):
                self._receive(key.data)

    def _begin(self, source: str, due: float) -> None:
        opened = _open(self._context, self._port, source, self._tally)
        if opened is not None:
            sock, _ = opened
            sock.setblocking(False)
            talker = _Talker(source, sock, sock.getsockname()[1], due)
            self._talkers.append(talker)
            self._selector.register(sock, selectors.EVENT_READ, talker)

    def _send(self, talker: _Talker, now: float) -> None:
        self._number += 1
        talker.waits_for, talker.began, talker.due = message(self._number), now, max(now, talker.due + self._every)
        try:
            if talker.sock.send(talker.waits_for) != len(talker.waits_for):
                self._lose(talker, "sent in part")
        except OSError as error:
            self._lose(talker, repr(error))

    def _receive(self, talker: _Talker) -> None:
        try:
            data = talker.sock.recv(65_536)
        except _WAITS:
            return
        except OSError as error:
            self._lose(talker, repr(error))
            return
        talker.got += data
        if not data:
            self._lose(talker, "ended")
        elif len(talker.got) >= len(talker.waits_for):
            if talker.got != talker.waits_for:
                self._lose(talker, "other bytes than were sent", "damaged")
                return
            self._tally.finish(time.monotonic() - talker.began)
            talker.waits_for = b""
            talker.got.clear()

    def _lose(self, talker: _Talker, error: str, phase: str = "cut") -> None:
        self._tally.fail(phase, error, talker.source, talker.port)
        self._selector.unregister(talker.sock)
        talker.sock.close()
        self._talkers.remove(talker)
        self._begin(talker.source, time.monotonic())


def _answer(tally: Tally) -> None:
    for _ in sys.stdin:
        print(json.dumps(tally.report()), flush=True)


def main(what: str, *args: str) -> None:
    tally = Tally()
    if what == "serve":
        name, cert, key, port = args
        serve(name, cert, key, int(port))
    elif what == "short":
        ca, port, rate = args
        short(ca, int(port), float(rate), tally)
        _answer(tally)
    else:
        ca, port, count, every = args
        talkers = Talkers(ca, int(port), int(count), float(every), tally)
        threading.Thread(target=talkers.run, daemon=True).start()
        _answer(tally)


if __name__ == "__main__":
    main(*sys.argv[1:])
