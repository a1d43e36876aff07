"""Real servers for tests: echo, HTTPS, named, and hostile ones; and clients with a source address."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

import trustme
from waiting import scaled

Handler = Callable[[socket.socket], None]


class TcpServer:
    """A listening socket and a thread for each connection; ``stop`` leaves nothing behind."""

    def __init__(self, handle: Handler, address: str = "127.0.0.1", port: int = 0, *, accepting: bool = True) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen(1024 if accepting else 0)
        self.address: str = address
        self.port: int = self._listener.getsockname()[1]
        self.peers: list[tuple[str, int]] = []  # of every connection, in order
        self._handle = handle
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopped = False
        if accepting:
            self._spawn(self._accept)

    def __enter__(self) -> TcpServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    @property
    def accepted(self) -> int:
        return len(self.peers)

    @property
    def open(self) -> int:
        """Connections that are being handled now."""
        with self._lock:
            return len(self._open)

    def stop(self) -> None:
        """Refuse new connections, end the open ones, wait for the threads."""
        with self._lock:
            self._stopped = True
            for sock in (self._listener, *self._open):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._listener.close()
        for thread in self._threads:
            thread.join(scaled(5))
            assert not thread.is_alive(), "a test server's thread does not end"

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._stopped:
                    sock.close()
                    return
                self._open.add(sock)
                self.peers.append(peer[:2])
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._handle(sock)
        except OSError:
            pass  # ended by the other side, or by stop
        finally:
            with self._lock:
                self._open.discard(sock)
                sock.close()


def echo_server(address: str = "127.0.0.1", port: int = 0) -> TcpServer:
    """Sends back what it gets; after the client's FIN its own."""

    def handle(sock: socket.socket) -> None:
        while data := sock.recv(65_536):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    return TcpServer(handle, address, port)


def named_server(name: str, address: str = "127.0.0.1", port: int = 0) -> TcpServer:
    """Says its name in one line at once, then echoes."""

    def handle(sock: socket.socket) -> None:
        sock.sendall(name.encode() + b"\n")
        while data := sock.recv(65_536):
            sock.sendall(data)

    return TcpServer(handle, address, port)


def silent_server(address: str = "127.0.0.1", port: int = 0) -> TcpServer:
    """Accepts and never says anything."""

    def handle(sock: socket.socket) -> None:
        while sock.recv(65_536):
            pass

    return TcpServer(handle, address, port)


def resetting_server(after: bytes = b"", address: str = "127.0.0.1", port: int = 0) -> TcpServer:
    """Sends ``after``, then RST."""

    def handle(sock: socket.socket) -> None:
        if after:
            sock.sendall(after)
            sock.recv(1)  # the client has it, so that the reset cannot overtake it
        reset(sock)

    return TcpServer(handle, address, port)


def https_server(
    name: str,
    ca: trustme.CA,
    address: str = "127.0.0.1",
    port: int = 0,
    certificate: trustme.LeafCert | None = None,
) -> TcpServer:
    """HTTP/1.1 over TLS, keep-alive; every answer is the server's name and the path."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (certificate or ca.issue_cert("localhost", "127.0.0.1")).configure_cert(context)

    def handle(raw: socket.socket) -> None:
        with context.wrap_socket(raw.dup(), server_side=True) as sock, sock.makefile("rb") as lines:
            while request := lines.readline():
                is_last = False
                while (header := lines.readline()) not in (b"\r\n", b""):
                    is_last |= header.lower().split() == [b"connection:", b"close"]
                body = f"{name} {request.split()[1].decode()}\n".encode()
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                if is_last:
                    return

    return TcpServer(handle, address, port)


class DeafPort:
    """A port that is bound but where nobody listens: connects are refused, and nobody else can take it."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._sock = socket.socket()
        self._sock.bind((address, 0))
        self.address, self.port = self._sock.getsockname()

    def stop(self) -> None:
        self._sock.close()


def connect(
    port: int, *, address: str = "127.0.0.1", source: str | None = None, timeout: float = 10.0
) -> socket.socket:
    """A client connection, from any address of 127.0.0.0/8 if ``source`` says so."""
    origin = (source, 0) if source else None
    return socket.create_connection((address, port), scaled(timeout), origin)


def read_line(sock: socket.socket) -> bytes:
    """One line, without reading beyond it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            break
        line += byte
    return line


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the other side's FIN."""
    parts = []
    while data := sock.recv(65_536):
        parts.append(data)
    return b"".join(parts)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    """What a TLS client of ``https_server`` trusts."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def https_get(
    port: int, context: ssl.SSLContext, path: str = "/", *, source: str | None = None, address: str = "127.0.0.1"
) -> str:
    """One request on one new connection; the body."""
    with connect(port, address=address, source=source) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            return body.decode().strip()
