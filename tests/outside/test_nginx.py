"""A real nginx with HTTPS behind a virtual service; curl and openssl as the judges."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from harness import Lbfast, free_port
from programs import behind, need, open_folder, opened, run, server
from waiting import scaled

pytestmark = pytest.mark.outside

NAME = "symphony.example"
BLOCK = os.urandom(1 << 20)
BLOCKS = 100

_CONFIG = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx-{port}.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:S:1m;
    location = /who {{
      default_type text/plain;
      return 200 "{name} sni=$ssl_server_name alpn=$ssl_alpn_protocol reused=$ssl_session_reused\\n";
    }}
    location / {{ root {folder}; }}
  }}
}}
"""


@dataclass
class Site:
    lb: Lbfast
    port: int
    ca: Path

    def curl(self, path: str, *options: str) -> list[str]:
        place = ["--resolve", f"{NAME}:{self.port}:127.0.0.1", "--cacert", str(self.ca)]
        return [need("curl", "curl"), "-sS", *place, *options, f"https://{NAME}:{self.port}{path}"]


@pytest.fixture(scope="module")
def site(ca: trustme.CA) -> Iterator[Site]:
    """Two nginx, each with session tickets of its own: only the same server can resume a TLS session."""
    program = need("nginx", "nginx")
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        certificate = ca.issue_cert(NAME)
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        ca.cert_pem.write_to_path(folder / "ca.pem")
        with (folder / "big").open("wb") as big:
            for _ in range(BLOCKS):
                big.write(BLOCK)
        ports = [free_port(), free_port()]
        for number, port in enumerate(ports, 1):
            config = folder / f"nginx-{port}.conf"
            user = "user root;\n" if os.geteuid() == 0 else ""
            config.write_text(_CONFIG.format(folder=folder, port=port, name=f"nginx{number}", user=user))
            command = [program, "-p", str(folder), "-c", str(config), "-e", "stderr"]
            stack.enter_context(server(command, port, folder))
        lb, port = stack.enter_context(behind(ports))
        yield Site(lb, port, folder / "ca.pem")


def test_curl_sees_the_certificate_sni_and_alpn_of_the_server(site: Site) -> None:
    """lbfast does not touch TLS: names and protocols pass as they are, for HTTP/2 and HTTP/1.1."""
    said = run(*site.curl("/who", "--http2", "-w", "%{http_version} %{ssl_verify_result}"))
    assert f"sni={NAME} alpn=h2" in said
    assert said.endswith("\n2 0")
    said = run(*site.curl("/who", "--http1.1", "-w", "%{http_version}"))
    assert f"sni={NAME} alpn=http/1.1" in said
    assert said.endswith("\n1.1")


def test_a_100_mb_download_has_the_right_hash(site: Site) -> None:
    expected = hashlib.sha256()
    for _ in range(BLOCKS):
        expected.update(BLOCK)
    with subprocess.Popen(site.curl("/big", "-f"), stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        received = hashlib.sha256()
        while data := curl.stdout.read(1 << 20):
            received.update(data)
        assert curl.wait(scaled(30)) == 0
    assert received.hexdigest() == expected.hexdigest()


def test_many_requests_on_one_connection_and_many_connections_of_one_client(site: Site) -> None:
    """A client stays on its server, whether it keeps its connection or makes new ones."""
    before = opened(site.lb)
    url = f"https://{NAME}:{site.port}/who"
    said = run(*site.curl("/who"), *[url] * 19)
    assert len(said.splitlines()) == 20
    names = set(re.findall(r"nginx\d", said))
    for _ in range(4):
        names |= set(re.findall(r"nginx\d", run(*site.curl("/who"))))
    assert len(names) == 1
    assert sum(opened(site.lb)) - sum(before) == 5, "20 requests of one curl share a connection"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_tls_sessions_are_resumed_because_the_client_meets_its_server_again(
    site: Site, version: str, tmp_path: Path
) -> None:
    openssl = need("openssl", "openssl")
    common = [openssl, "s_client", "-connect", f"127.0.0.1:{site.port}", "-servername", NAME, "-CAfile", str(site.ca)]
    common += [version, "-alpn", "http/1.1", "-ign_eof"]
    request = f"GET /who HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
    first = run(*common, "-sess_out", str(tmp_path / "session"), text=request)
    assert "Verify return code: 0 (ok)" in first
    assert "ALPN protocol: http/1.1" in first
    assert "reused=." in first
    again = run(*common, "-sess_in", str(tmp_path / "session"), text=request)
    assert "Reused, TLSv1" in again
    assert "reused=r" in again
