"""The servers that every peer stands before: nginx for HTTP and HTTPS, our own for echo and uploads."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers import TOP, find_program
from bench.procs import Ports, Program

SMALL = "0123456789abcdef0123456789abcdef"
MB = 1 << 20
FILES = {"1m": 1, "20m": 20, "100m": 100}


@dataclass(frozen=True)
class Servers:
    """Where everything is.  Each peer has its own port of the same nginx worker: a connection that one peer leaves in
    TIME_WAIT takes no source port from the next."""

    plain: tuple[int, ...]
    tls: tuple[int, ...]
    echo: int
    sink: int
    files: Path

    def targets(self, index: int) -> dict[str, int]:
        return {"plain": self.plain[index], "tls": self.tls[index], "echo": self.echo, "sink": self.sink}


def write_files(folder: Path) -> None:
    """Bytes that repeat nowhere, so that a lost, doubled or moved piece is seen; and a certificate."""
    dice = random.Random(1)
    for name, size in FILES.items():
        with (folder / name).open("wb") as file:
            for _ in range(size):
                file.write(dice.randbytes(MB))
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=bench.example", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)


def render_origin(folder: Path, plain: Sequence[int], tls: Sequence[int]) -> str:
    """Full TLS handshakes: no tickets and no cache, so that "per request" means what it says."""
    listen = "".join(f"    listen 127.0.0.1:{port} reuseport backlog=4096;\n" for port in plain)
    listen += "".join(f"    listen 127.0.0.1:{port} ssl reuseport backlog=4096;\n" for port in tls)
    return f"""user root;
worker_processes 1;
daemon off;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 18000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  send_timeout 1h;
  sendfile on;
  tcp_nodelay on;
  default_type application/octet-stream;
  ssl_certificate {folder}/cert.pem;
  ssl_certificate_key {folder}/key.pem;
  ssl_session_cache off;
  ssl_session_tickets off;
  server {{
{listen}    root {folder};
    location = /s {{ return 200 "{SMALL}"; }}
  }}
}}
"""


@contextlib.contextmanager
def servers(ports: Ports, peer_count: int) -> Iterator[Servers]:
    """Running servers, with a plain and a TLS port for each peer."""
    with contextlib.ExitStack() as stack:
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbfast-bench-files-")))
        files.chmod(0o755)
        write_files(files)
        made = Servers(
            tuple(ports.take() for _ in range(peer_count)),
            tuple(ports.take() for _ in range(peer_count)),
            ports.take(),
            ports.take(),
            files,
        )
        for program, listening in ((_origin(made), made.plain + made.tls), (_raw(made), (made.echo, made.sink))):
            stack.callback(program.stop)
            program.wait_accepting(listening)
        yield made


def _origin(made: Servers) -> Program:
    folder = Path(tempfile.mkdtemp(prefix="lbfast-bench-"))
    (folder / "nginx.conf").write_text(render_origin(made.files, made.plain, made.tls))
    nginx = find_program("nginx", "nginx")
    return Program("origin nginx", [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)], folder)


def _raw(made: Servers) -> Program:
    folder = Path(tempfile.mkdtemp(prefix="lbfast-bench-"))
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    command = [sys.executable, "-m", "bench.raw_servers", str(made.echo), str(made.sink)]
    return Program("echo and sink", command, folder, env)
