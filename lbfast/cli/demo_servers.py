"""One demo web server: HTTPS on 127.0.0.1, a small page that says who answered; ends when its stdin does."""

from __future__ import annotations

import contextlib
import html
import socket
import ssl
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_HANDSHAKE_TIMEOUT = 5.0
_IDLE_TIMEOUT = 60.0

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{name}</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 15vh auto; max-width: 32rem; padding: 0 1rem }}</style>
</head>
<body>
<h1>{name}</h1>
<p>You reached {path} on {name}.</p>
<p>Connection from: {source}</p>
<p>Time: {time}</p>
</body>
</html>
"""


class DemoServer(ThreadingHTTPServer):
    """Does the TLS handshake in the connection's own thread, so that a slow client holds up nobody else."""

    request_queue_size = 256

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), DemoHandler)
        self.name = name
        self.context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_HANDSHAKE_TIMEOUT)
        # A probe that only connects, a client that resets: no business of this server.
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as tls:
            tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls.settimeout(_IDLE_TIMEOUT)
            DemoHandler(tls, client_address, self)


class DemoHandler(BaseHTTPRequestHandler):
    """Any GET or HEAD answers the page; ``/health`` answers 200 for the health check."""

    protocol_version = "HTTP/1.1"
    server: DemoServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def version_string(self) -> str:
        return "lbfast-demo"

    def log_message(self, *args: Any) -> None:
        """Say nothing: the demo's terminal shows lbfast's own events."""

    def _answer(self, with_body: bool) -> None:
        healthy = self.path == "/health"
        body = b"ok\n" if healthy else self._page().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if healthy else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _page(self) -> str:
        return _PAGE.format(
            name=html.escape(self.server.name),
            path=html.escape(self.path),
            source=html.escape(f"{self.client_address[0]}, port {self.client_address[1]}"),
            time=html.escape(datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")),
        )


def serve(name: str, certificate: Path, key: Path) -> int:
    """Serve until stdin ends, which it does when the demo does, however that ends; prints its port first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with DemoServer(name, context) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        print(f"PORT {server.server_address[1]}", flush=True)
        sys.stdin.buffer.read()
        server.shutdown()
        server.block_on_close = False  # keep-alive clients are not waited for
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
