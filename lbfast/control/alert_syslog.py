"""Alerts to a syslog server over UDP, TCP or TLS, as RFC 5424 has them.  Blocking: called in a thread."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from typing import Final

from lbfast.control.alert_groups import AlertMessage
from lbfast.control.log_targets import FACILITY_DAEMON, IDENTIFIER
from lbfast.model.addresses import join_address
from lbfast.model.upkeep import SyslogServer

TIMEOUT_S: Final = 15.0
# Nobody acknowledges a message of syslog.  What can be heard is a refusal, and it comes at once.
REFUSAL_S: Final = 1.0
LONGEST_UDP: Final = 2_048  # what every receiver takes (RFC 5426)
LONGEST: Final = 8_192
_WARNING, _NOTICE = 4, 5
_GOOD: Final = ("server_up", "service_up", "test")


def send_syslog(server: SyslogServer, message: AlertMessage, host: str) -> None:
    """Hand over one record for each alert; OSError when that is known to have failed."""
    longest = LONGEST_UDP if server.protocol == "udp" else LONGEST
    records = [make_record(alert.kind, alert.at, alert.text, host, longest) for alert in message.alerts]
    last = message.alerts[-1]
    more = message.lines()[len(message.alerts) :]
    records += [make_record(last.kind, last.at, line, host, longest) for line in more]
    try:
        if server.protocol == "udp":
            _send_datagrams(server, records)
        else:
            _send_stream(server, records)
    except ConnectionRefusedError:
        raise OSError(f"{_place(server)} ({server.protocol}): nobody listens there") from None
    except OSError as error:
        raise OSError(f"{_place(server)} ({server.protocol}): {error.strerror or error}") from error


def make_record(kind: str, at: str, text: str, host: str, longest: int) -> bytes:
    """One record.  Nothing of a label can end it or begin another one."""
    priority = FACILITY_DAEMON * 8 + (_NOTICE if kind in _GOOD else _WARNING)
    name = "".join(char for char in host if 33 <= ord(char) <= 126)[:255] or "-"
    head = f"<{priority}>1 {at or '-'} {name} {IDENTIFIER} {os.getpid()} {kind} - ".encode("ascii", "replace")
    shown = "".join(char if char.isprintable() else " " for char in text)
    record = head + b"\xef\xbb\xbf" + shown.encode("utf-8", "replace")
    return record[:longest].decode("utf-8", "ignore").encode()  # cut between characters


def _send_datagrams(server: SyslogServer, records: list[bytes]) -> None:
    found = socket.getaddrinfo(server.host, server.port_number, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(address)
        for record in records:
            sock.send(record)
        _hear_refusal(sock)


def _send_stream(server: SyslogServer, records: list[bytes]) -> None:
    """Each record after its length (RFC 6587): it may hold anything."""
    data = b"".join(b"%d %b" % (len(record), record) for record in records)
    with socket.create_connection((server.host, server.port_number), TIMEOUT_S) as sock:
        if server.protocol == "tcp":
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            _hear_refusal(sock)
            return
        context = ssl.create_default_context(cafile=server.ca_file)
        with context.wrap_socket(sock, server_hostname=server.host) as secured:
            secured.sendall(data)
            with suppress(ssl.SSLEOFError):  # it read, and closed in its own way
                _hear_refusal(secured)


def _hear_refusal(sock: socket.socket) -> None:
    sock.settimeout(REFUSAL_S)
    with suppress(TimeoutError):
        sock.recv(1)


def _place(server: SyslogServer) -> str:
    return join_address(server.host, server.port_number)
