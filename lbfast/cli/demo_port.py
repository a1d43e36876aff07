"""Whether a port of this machine is free for the demo."""

from __future__ import annotations

import errno
import socket

from lbfast.cli.errors import Refused


def free_port(port: int) -> int:
    """The port when it can be bound on 127.0.0.1, any free one for 0; Refused with what to do otherwise."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = "is in use by another program"
            elif error.errno == errno.EACCES:
                why = "needs root"
            else:
                why = f"cannot be bound ({error.strerror})"
            raise Refused(f"port {port} on 127.0.0.1 {why}; choose another with `lbfast demo --port N`") from None
        return int(sock.getsockname()[1])
