"""Locust users through a virtual service: one speaks HTTPS, one plain TCP (an echo server must stand behind it).

    locust -f bench/locustfile.py --host https://192.168.85.150 --tcp 192.168.85.150:7000

Distributed: the same with ``--master`` on one machine and ``--worker --master-host ADDRESS`` on each of the others.
`make locust` runs both users against an lbfast of its own.  Users of one process come from one address, so source-IP
persistence sends them all to one real server: more machines, or more addresses, spread them.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import urllib3
from locust import HttpUser, User, between, events, task

TIMEOUT = 10.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: Any) -> None:
    parser.add_argument("--tcp", default="", help="HOST:PORT of a virtual service with echo servers behind it")
    parser.add_argument("--path", default="/", help="what the HTTPS user asks for")


class WebUser(HttpUser):
    """Keeps its connection, as a browser does, and asks for a page now and then."""

    wait_time = between(0.05, 0.2)
    weight = 2

    def on_start(self) -> None:
        # A bench certificate; what is measured is the way through lbfast.
        self.client.verify = False
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    @task
    def page(self) -> None:
        with self.client.get(self.environment.parsed_options.path, catch_response=True) as answer:
            if answer.status_code != 200 or not answer.content:
                answer.failure(
                    f"status {answer.status_code}, {len(answer.content or b'')} bytes; expected 200 and a body"
                )


class DeviceUser(User):
    """A device: connects, sends messages of an HL7-like size, expects each one back, and at times connects anew."""

    wait_time = between(0.05, 0.2)
    messages_per_connection = 20

    def on_start(self) -> None:
        self.sock: socket.socket | None = None
        self.sent = 0

    def on_stop(self) -> None:
        self.hang_up()

    @task
    def message(self) -> None:
        host, _, port = self.environment.parsed_options.tcp.rpartition(":")
        if not host:
            return
        if self.sock is None or self.sent >= self.messages_per_connection:
            self.hang_up()
            self.timed("connect", self.connect, host, int(port))
        if self.sock is not None:
            self.timed("message", self.exchange, os.urandom(700))

    def connect(self, host: str, port: int) -> int:
        self.sock = socket.create_connection((host, port), TIMEOUT)
        self.sent = 0
        return 0

    def exchange(self, message: bytes) -> int:
        assert self.sock is not None
        self.sent += 1
        self.sock.sendall(message)
        came = b""
        while len(came) < len(message):
            piece = self.sock.recv(4096)
            if not piece:
                raise ConnectionError(f"closed after {len(came)} of {len(message)} bytes")
            came += piece
        if came != message:
            raise ValueError("other bytes came back than were sent")
        return len(came)

    def hang_up(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def timed(self, name: str, action: Any, *arguments: Any) -> None:
        """Tell locust how it went: raw sockets are not measured by themselves."""
        began, size, fault = time.perf_counter(), 0, None
        try:
            size = action(*arguments)
        except (OSError, ValueError) as error:
            fault = error
            self.hang_up()
        self.environment.events.request.fire(
            request_type="TCP",
            name=name,
            response_time=1000 * (time.perf_counter() - began),
            response_length=size,
            exception=fault,
            context={},
        )
