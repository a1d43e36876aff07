"""The demo: its servers, its configuration, its errors, and the whole of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from cli_fake import environment, lbfast
from cryptography import x509

from lbfast.cli.demo import program
from lbfast.cli.demo_children import port_of, start_server
from lbfast.cli.demo_text import SERVERS, Served, render_config, render_welcome
from lbfast.config.store import load

UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE


def get(port: int, path: str = "/", source: str = "127.0.0.1") -> tuple[int, str]:
    connection = HTTPSConnection("127.0.0.1", port, context=UNCHECKED, timeout=20, source_address=(source, 0))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_demo_server(tmp_path):
    with ExitStack() as stack:
        child = start_server(stack, SERVERS[1], tmp_path)
        port = port_of(SERVERS[1], child)
        status, page = get(port, "/<script>", source="127.0.0.7")
        assert status == 200
        assert "<h1>Symphony Server 2</h1>" in page
        assert "127.0.0.7" in page
        assert "/&lt;script&gt;" in page
        assert get(port, "/health") == (200, "ok\n")
        with socket.create_connection(("127.0.0.1", port)) as silent:  # holds up nobody
            assert get(port)[0] == 200
            with UNCHECKED.wrap_socket(silent) as tls:
                der = tls.getpeercert(binary_form=True)
        assert der is not None
        certificate = x509.load_der_x509_certificate(der)
        assert certificate.subject.rfc4514_string() == "CN=Symphony Server 2"
        assert (tmp_path / "symphony-server-2.key").stat().st_mode & 0o077 == 0
        assert child.poll() is None
    assert child.returncode == 0


def test_a_stopped_server_is_stopped_for_good(tmp_path):
    with ExitStack() as stack:
        child = start_server(stack, SERVERS[0], tmp_path)
        port_of(SERVERS[0], child)
        child.send_signal(signal.SIGSTOP)
    assert child.returncode == 0


def test_the_configuration_is_valid(tmp_path):
    file = tmp_path / "demo.toml"
    file.write_text(render_config(8443, 9443, [Served(name, 40000 + n, n) for n, name in enumerate(SERVERS)]))
    loaded = load(file)
    assert loaded.warnings == ()
    (service,) = loaded.config.virtual_services
    assert service.label == "Symphony"
    assert [(real.label, real.port) for real in service.real_servers] == [
        ("Symphony Server 1", 40000),
        ("Symphony Server 2", 40001),
        ("Symphony Server 3", 40002),
    ]


def test_the_words_can_be_copied():
    servers = [Served(name, 40000 + n, 700 + n) for n, name in enumerate(SERVERS)]
    text = render_welcome(
        8443, "https://127.0.0.1:9443/lbadmin/setup?code=x", servers, "lbfast", {"LBFAST_RUNTIME_DIR": "/tmp/a b/run"}
    )
    assert "export LBFAST_RUNTIME_DIR='/tmp/a b/run'" in text
    assert "lbfast drain Symphony 'Symphony Server 1'" in text
    assert "lbfast online Symphony 'Symphony Server 1'" in text
    assert "curl -k --interface 127.0.0.2 https://127.0.0.1:8443/" in text
    assert "kill 700" in text
    assert "https://127.0.0.1:9443/lbadmin/setup?code=x" in text


def test_the_program_is_named_so_that_any_terminal_finds_it(tmp_path, monkeypatch):
    own = tmp_path / "a tree" / ".venv" / "bin" / "lbfast"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.chdir(tmp_path / "a tree")
    monkeypatch.setattr(sys, "argv", [".venv/bin/lbfast", "demo"])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program() == f"'{own}'"
    monkeypatch.setenv("PATH", f"/usr/bin:{own.parent}")
    assert program() == "lbfast"


def test_a_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = lbfast(tmp_path, "demo", "--port", str(port))
    assert (said.returncode, said.stdout) == (1, "")
    assert f"port {port} on 127.0.0.1 is in use" in said.stderr
    assert "--port" in said.stderr


def test_check_and_schema(tmp_path):
    file = tmp_path / "a [b].toml"
    file.write_text(render_config(8443, 9443, [Served("A", 1, 1), Served("B", 2, 2)]))
    said = lbfast(tmp_path, "check", str(file))
    assert (said.returncode, said.stdout) == (0, f"{file}: ok: 1 virtual service, 2 real servers\n")
    report = json.loads(lbfast(tmp_path, "check", str(file), "--json").stdout)
    assert report == {
        "file": str(file), "ok": True, "virtual_services": 1, "real_servers": 2, "problems": [], "warnings": [],
    }  # fmt: skip
    file.write_text(file.read_text().replace("port = 2", "prot = 2").replace('"8443"', '"0"'))
    said = lbfast(tmp_path, "check", str(file))
    assert (said.returncode, said.stdout) == (2, "")
    assert [row.split(":")[0] for row in said.stderr.splitlines()] == [str(file)] * 2
    assert '"port"' in said.stderr
    told = lbfast(tmp_path, "check", "--json", str(file))
    assert (told.returncode, told.stderr) == (2, "")
    report = json.loads(told.stdout)
    assert (report["ok"], [it["found"] for it in report["problems"]]) == (False, ['"0"', "an unknown key"])
    row = "{file}:{line}: {key}: found {found}, expected {expected}"
    assert [row.format(file=file, **it) for it in report["problems"]] == said.stderr.splitlines()
    missing = lbfast(tmp_path, "check", str(tmp_path / "none.toml"))
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert '"virtual_service"' in lbfast(tmp_path, "schema").stdout


class Demo:
    """`lbfast demo` as a process, read line by line."""

    def __init__(self, folder: Path) -> None:
        kept = {name: value for name, value in environment(folder).items() if not name.startswith("LBFAST_")}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "lbfast", "demo", "--port", "0"],
            env=kept | {"TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self.said: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read on to the next line that holds ``text``."""
        assert self.child.stdout is not None
        for row in self.child.stdout:
            self.said.append(row)
            if text in row:
                return row
        pytest.fail(f"{text!r} was not said:\n{''.join(self.said)}")

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
        assert self.child.stdout is not None
        self.said += self.child.stdout
        self.child.wait(30)
        self.child.stdout.close()


@pytest.mark.timeout(60)
def test_the_whole_demo(tmp_path):
    demo = Demo(tmp_path)
    try:
        port = int(demo.wait_for("listens on").split("127.0.0.1:")[1].split("/")[0])
        pids = {row.split("  ")[1].strip(): int(row.split("pid ")[1]) for row in map(demo.wait_for, SERVERS)}
        runtime = demo.wait_for("export LBFAST_RUNTIME_DIR=").strip().split("=")[1]
        demo.wait_for("Live events")
        assert get(port)[0] == 200
        home = demo.wait_for(" open   127.0.0.1").split("-> ")[1].split("  (")[0]
        assert home in SERVERS
        for _ in range(3):
            assert f"<h1>{home}</h1>" in get(port)[1]
        assert lbfast(Path(runtime), "drain", "Symphony", home).returncode == 0
        demo.wait_for(" admin ")
        os.kill(pids[home], signal.SIGKILL)
        assert f'"{home}"' in demo.wait_for("is gone")
        assert home not in get(port)[1].split("<h1>")[1].split("</h1>")[0]
    finally:
        demo.end()
    assert demo.child.returncode == 0
    assert demo.said[-1] == "stopped\n"
    assert list(tmp_path.glob("lbfast-demo-*")) == []
    with pytest.raises(OSError):
        get(port)
