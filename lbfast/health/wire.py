"""One probe's connection to a server: plain TCP, or TLS over it through memory buffers.

TLS goes through ``ssl.MemoryBIO`` rather than asyncio's transports: that costs
half the CPU per probe, and every byte read is asked for, so an endless server
can never fill a buffer of ours.  The socket is closed plainly (SO_LINGER left alone).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Protocol

from lbfast.health.outcome import LOCAL_ERRNOS, ProbeFailed, ProbeUnmade, os_reason
from lbfast.health.text import quote

READ_SIZE = 16_384
MAX_HANDSHAKE = 262_144  # a certificate chain larger than this is an attack
OP_LEGACY_SERVER_CONNECT = 0x4  # has a name from Python 3.12 on


class Wire(Protocol):
    """``read`` returns b"" at the end of the stream; both raise ProbeFailed on what the server did."""

    async def write(self, data: bytes) -> None: ...
    async def read(self) -> bytes: ...


class TcpWire:
    """Owns its socket; to be closed by whoever made it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def write(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise ProbeFailed(os_reason("sending", error)) from error

    def write_now(self, data: bytes) -> None:
        """What fits at this moment; the rest and any error are dropped."""
        try:
            self._sock.send(data)
        except OSError:
            pass

    async def read(self) -> bytes:
        try:
            return await self._loop.sock_recv(self._sock, READ_SIZE)
        except OSError as error:
            raise ProbeFailed(os_reason("reading", error)) from error

    def close(self) -> None:
        self._sock.close()


async def connect(address: str, port: int, source: str | None) -> TcpWire:
    """A connected wire, from ``source`` if given."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = f"connect to [{address}]:{port}" if family == socket.AF_INET6 else f"connect to {address}:{port}"
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise ProbeUnmade(os_reason("socket", error)) from error
    try:
        _bind(sock, source)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except OSError as error:
            if error.errno in LOCAL_ERRNOS:
                raise ProbeUnmade(os_reason(where, error)) from error
            # str(error) repeats the address; the errno's text is enough
            raise ProbeFailed(os_reason(where, error)) from error
    except BaseException:
        sock.close()
        raise
    return TcpWire(sock)


def _bind(sock: socket.socket, source: str | None) -> None:
    if source is None:
        return
    try:
        # the port is chosen at connect, so that probes do not use up ports per source address
        sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        sock.bind((source, 0))
    except OSError as error:
        hint = " (it is not an address of this machine)" if error.errno == errno.EADDRNOTAVAIL else ""
        raise ProbeFailed(os_reason(f"source address {source}", error) + hint) from error


def make_context() -> ssl.SSLContext:
    """A context that talks to anything: probes observe certificates and versions, they do not judge them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.options |= OP_LEGACY_SERVER_CONNECT
    return context


class TlsWire:
    """TLS over a TcpWire.  ``handshake`` first."""

    def __init__(self, tcp: TcpWire, context: ssl.SSLContext, server_name: str | None) -> None:
        self._tcp = tcp
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    async def handshake(self) -> None:
        received, first = 0, b""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._read_tcp()
                first, received = first or data, received + len(data)
                if received > MAX_HANDSHAKE:
                    raise ProbeFailed(f"TLS handshake: more than {MAX_HANDSHAKE} bytes from the server") from None
                continue
            except ssl.SSLError as error:
                raise ProbeFailed(_tls_reason(error, first)) from error
            await self._flush()
            return

    def version(self) -> str:
        return self._tls.version() or "unknown version"

    def peer_certificate(self) -> bytes | None:
        return self._tls.getpeercert(binary_form=True)

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await self._tcp.read())
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise ProbeFailed(_tls_reason(error, b"")) from error

    def finish(self) -> None:
        """Say goodbye (close_notify), so that the server does not log a cut connection.  Never waits."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the server's goodbye is not waited for
        if self._outgoing.pending:
            self._tcp.write_now(self._outgoing.read())

    async def _read_tcp(self) -> bytes:
        try:
            data = await self._tcp.read()
        except ProbeFailed as error:
            raise ProbeFailed(f"TLS handshake: {error}") from error
        self._feed(data)
        if not data:
            raise ProbeFailed("TLS handshake: the server closed the connection")
        return data

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._tcp.write(self._outgoing.read())


def _tls_reason(error: ssl.SSLError, first: bytes) -> str:
    name = (error.reason or str(error)).lower().replace("_", " ")
    if first and first[0] not in (0x15, 0x16):  # neither an alert nor a handshake record
        return f"TLS handshake: the server does not speak TLS, it said {quote(first)}"
    return f"TLS handshake: {name}"
