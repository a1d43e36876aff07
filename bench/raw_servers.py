"""An echo server and an upload sink on 127.0.0.1, one epoll loop: the servers that nginx is not.

    python -m bench.raw_servers ECHO_PORT SINK_PORT

The sink takes everything and, at the client's end of stream, answers with the number of bytes and their CRC-32 when the
first byte was ``C`` (the timed uploads begin with ``N``: counting only).
"""

from __future__ import annotations

import select
import socket
import sys
import zlib
from dataclasses import dataclass

READ = 1 << 20


@dataclass
class Client:
    """One accepted connection."""

    sock: socket.socket
    is_sink: bool
    count: int = 0
    crc: int = 0
    is_checked: bool = False


def listen(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


class Servers:
    """The loop and everybody in it."""

    def __init__(self, echo_port: int, sink_port: int) -> None:
        self.poll = select.epoll()
        self.buffer = bytearray(READ)
        self.view = memoryview(self.buffer)
        self.clients: dict[int, Client] = {}
        self.listeners = {sock.fileno(): sock for sock in (listen(echo_port), listen(sink_port))}
        self.sink_fd = list(self.listeners)[1]
        for fd in self.listeners:
            self.poll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        while True:
            for fd, _ in self.poll.poll():
                if fd in self.listeners:
                    self.accept(fd)
                else:
                    self.serve(self.clients[fd])

    def accept(self, fd: int) -> None:
        for _ in range(64):
            try:
                sock, _ = self.listeners[fd].accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.clients[sock.fileno()] = Client(sock, fd == self.sink_fd)
            self.poll.register(sock.fileno(), select.EPOLLIN)

    def serve(self, client: Client) -> None:
        try:
            size = client.sock.recv_into(self.buffer)
            if size and not client.is_sink:
                client.sock.send(self.view[:size])  # small messages only: a full socket buffer is an error here
        except BlockingIOError:
            return
        except OSError:
            size = -1
        if size > 0 and client.is_sink:
            self.take(client, size)
        if size <= 0:
            self.end(client, clean=size == 0)

    def take(self, client: Client, size: int) -> None:
        if client.count == 0:
            client.is_checked = self.buffer[0] == ord("C")
        client.count += size
        if client.is_checked:
            client.crc = zlib.crc32(self.view[:size], client.crc)

    def end(self, client: Client, clean: bool) -> None:
        if clean and client.is_sink:
            try:
                client.sock.send(client.count.to_bytes(8, "big") + client.crc.to_bytes(4, "big"))
            except OSError:
                pass  # the client is gone: nobody to tell
        self.clients.pop(client.sock.fileno())
        client.sock.close()


def main() -> None:
    Servers(int(sys.argv[1]), int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
