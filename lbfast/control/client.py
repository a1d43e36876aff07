"""The synchronous client of the control socket: what every command and the web use."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbfast.control import protocol
from lbfast.control.protocol import ControlError

__all__ = ["Client", "ControlError", "ControlUnavailable"]


class ControlUnavailable(Exception):
    """Nobody answers on the control socket; the text names the path and what to do."""


class Client:
    """One connection per call, so that a restart of control is never noticed between two calls."""

    def __init__(self, path: Path | str | None = None, timeout: float | None = 30.0) -> None:
        """``path``: the socket, by default the one in ``$LBFAST_RUNTIME_DIR``;
        ``timeout``: seconds to wait for each answer, None for ever."""
        self.path = Path(path) if path is not None else protocol.socket_path()
        self.timeout = timeout

    def call(self, verb: str, **args: Any) -> Any:
        """The result of a verb.  Arguments that are None are left out.

        ControlError when lbfast refuses, ControlUnavailable when it cannot be asked.
        """
        request = _request(verb, args)
        with self._connect() as sock:
            self._send(sock, request)
            with sock.makefile("rb") as lines:
                return protocol.decode_answer(self._line(lines, verb))

    def stream(self, verb: str, **args: Any) -> Iterator[Any]:
        """The results of a verb that goes on answering; ends when lbfast closes the connection.

        There is no timeout: the next result comes when something happens.  Close the generator to stop.
        """
        request = _request(verb, args)
        with self._connect() as sock:
            self._send(sock, request)
            sock.settimeout(None)
            with sock.makefile("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        return  # control went away in the middle of a line
                    yield protocol.decode_answer(line)

    def _connect(self) -> socket.socket:
        try:
            path = protocol.check_path(self.path)
        except ValueError as error:
            raise ControlUnavailable(str(error)) from None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise ControlUnavailable(_why_unreachable(path, error)) from error
        return sock

    def _send(self, sock: socket.socket, request: bytes) -> None:
        try:
            sock.sendall(request)
        except TimeoutError:
            raise ControlUnavailable(self._slow("take the request")) from None
        except OSError:
            return  # refused before reading (too many clients): the answer says why

    def _line(self, lines: Any, verb: str) -> bytes:
        try:
            line: bytes = lines.readline()
        except TimeoutError:
            raise ControlUnavailable(self._slow(f"answer {verb!r}")) from None
        except OSError as error:
            raise ControlUnavailable(f"{self.path}: the connection broke: {error.strerror}; try again") from error
        if not line.endswith(b"\n"):
            raise ControlUnavailable(
                f"{self.path}: lbfast closed the connection before it answered {verb!r}; "
                "its control process is probably restarting, try again"
            )
        return line

    def _slow(self, what: str) -> str:
        return (
            f"{self.path}: lbfast did not {what} within {self.timeout:g} s; "
            "the control process is stuck or the machine overloaded (look at its log, then try again)"
        )


def _request(verb: str, args: dict[str, Any]) -> bytes:
    return protocol.encode_request(verb, {key: value for key, value in args.items() if value is not None})


def _why_unreachable(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return (
            f"no lbfast is running here: {path} does not exist; start it with `lbfast run --config FILE`, "
            "or set LBFAST_RUNTIME_DIR to the directory that the running one uses"
        )
    if error.errno == errno.ECONNREFUSED:
        return f"nobody answers on {path}: lbfast has ended; start it with `lbfast run --config FILE`"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"permission denied on {path} (you are user id {os.geteuid()}); "
            "use sudo or become a member of the group that owns the socket"
        )
    if error.errno == errno.ENOTDIR:
        return f"{path}: a part of this path is not a directory; check LBFAST_RUNTIME_DIR"
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return f"{path}: lbfast does not accept the connection; its control process is stuck or flooded, try again"
    return f"cannot reach lbfast on {path}: {error.strerror or error}"
