"""What goes wrong at the command line: said with place, key, found and expected; nothing is started or changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, Lbfast, free_port, real_server, render_toml, virtual_service, wait_for
from servers import TcpServer, connect, named_server, read_line
from waiting import scaled

GOOD = """\
workers = 1

[[virtual_service]]
label = "Symphony"
address = "127.0.0.1"
ports = "{port}"

  [[virtual_service.real_server]]
  label = "Server 1"
  address = "127.0.0.1"
  port = 9
"""

# What replaces what in the good file; then line, key, found and expected as the message has them.
BAD: dict[str, tuple[str, str, int, str, str, str]] = {
    "unknown key": ('ports = "{port}"', 'prots = "443"', 6, "prots", "", '"ports"'),
    "wrong type": ("workers = 1", 'workers = "two"', 1, "workers", '"two"', "number"),
    "out of range": ("  port = 9", "  port = 9\n  weight = 300", 12, "weight", "300", "256"),
    "bad duration": (
        'ports = "{port}"',
        'ports = "{port}"\nconnect_timeout = "4 lightyears"',
        7,
        "connect_timeout",
        "4 l",
        "4s",
    ),
    "no address": ('  address = "127.0.0.1"', '  address = "symphony"', 10, "address", '"symphony"', "address"),
    "duplicate label": (
        "  port = 9",
        '  port = 9\n\n  [[virtual_service.real_server]]\n  label = "Server 1"\n  address = "127.0.0.1"',
        14,
        "label",
        '"Server 1"',
        "",
    ),
    "same address and port": (
        "  port = 9",
        '  port = 9\n\n[[virtual_service]]\nlabel = "Other"\naddress = "127.0.0.1"\nports = "{port}"',
        16,
        "ports",
        "{port}",
        "",
    ),
    "not TOML": ("workers = 1", "workers = = 1", 1, "", "", ""),
    "source address of nobody": (
        'ports = "{port}"',
        'ports = "{port}"\nsource_addresses = ["127.0.0.1", "203.0.113.77"]',
        7,
        "source_addresses",
        '"203.0.113.77", which is not on this machine',
        "an address of this machine",
    ),
    "probes from an address of nobody": (
        'ports = "{port}"',
        'ports = "{port}"\nhealth_check = { type = "connect", source_address = "203.0.113.77" }',
        7,
        "health_check . source_address",
        '"203.0.113.77", which is not on this machine',
        "an address of this machine",
    ),
    "interface of nobody": (
        'ports = "{port}"',
        'ports = "{port}"\ninterface = "eht0"',
        7,
        "interface",
        '"eht0"',
        "an interface of this machine",
    ),
    "congestion control of nobody": (
        'ports = "{port}"',
        'ports = "{port}"\ncongestion_control = "nosuch"',
        7,
        "congestion_control",
        '"nosuch", which this kernel does not have',
        '"system", ',
    ),
    "address of nobody": (
        'address = "127.0.0.1"\nports',
        'address = "203.0.113.77"\nports',
        5,
        "address",
        "203.0.113.77",
        "interface",
    ),
}


@pytest.fixture
def server() -> Iterator[TcpServer]:
    with named_server("one") as running:
        yield running


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can look into: pytest's own are for one user only."""
    with tempfile.TemporaryDirectory(prefix="lbfast-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("what", BAD)
def test_a_bad_configuration_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    old, new, line, *words = BAD[what]
    port = free_port()
    file = tmp_path / "bad.toml"
    file.write_text(GOOD.replace(old, new, 1).replace("{port}", str(port)))
    code, out, err = _lbfast(tmp_path, "run", "--config", str(file))
    assert (code, out) == (2, "")
    assert f"{file}:{line}:" in err
    for word in (word.replace("{port}", str(port)) for word in words):
        assert word in err
    if what != "not TOML":
        assert "found " in err
        assert "expected " in err
    _assert_nothing_started(tmp_path, port)
    if "of nobody" not in what:  # which depends on the machine, and `check` is for the file
        code, _, told = _lbfast(tmp_path, "check", str(file))
        assert (code, told) == (2, err)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(GOOD.replace("workers = 1", "workers = 0").replace('"{port}"', '"0"').replace("9", "70000"))
    code, _, err = _lbfast(tmp_path, "check", str(file))
    assert code == 2
    assert [line.split(":")[1] for line in err.splitlines()] == ["1", "6", "11"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    code, out, err = _lbfast(tmp_path, "run", "--config", str(tmp_path / "none.toml"))
    assert (code, out) == (2, "")
    assert "none.toml" in err
    assert "Traceback" not in err


def test_a_log_that_cannot_be_written_is_told_at_start_and_clients_are_served(
    server: TcpServer, tmp_path: Path
) -> None:
    port, file = free_port(), tmp_path / "none" / "lbfast.log"
    config = {"log": {"target": "file", "file": str(file)}}
    text = render_toml(config | {"virtual_service": [virtual_service(port, [real_server("one", server.port)])]})
    with Lbfast(text, allow_stderr=True) as lb:
        with connect(port) as client:
            assert read_line(client) == b"one\n"
        place = f"warning: {lb.config_path}:1: log . file: found "
        assert place in lb.stderr, lb.stderr
        assert f'"{file}", but {file.parent} does not exist, expected a file in a folder' in lb.stderr
    assert not file.parent.exists()


def test_a_web_certificate_that_cannot_be_used_is_told_and_clients_are_served(
    server: TcpServer, open_folder: Path
) -> None:
    port, missing = free_port(), open_folder / "none.pem"
    with Lbfast(_with_web(port, server, certificate=str(missing)), allow_stderr=True) as lb:
        with connect(port) as client:
            assert read_line(client) == b"one\n"
        told = f'found "{missing}": no such file or directory, expected a PEM file that can be read'
        assert f"warning: {lb.config_path}:" in lb.stderr
        assert f" web . certificate: {told}" in lb.stderr
        wait_for(lambda: f"lbfast web: cannot start: [web] certificate: {told}" in lb.stderr, what="the web's own word")


def test_a_commit_does_not_bring_a_web_certificate_that_cannot_be_used(server: TcpServer, open_folder: Path) -> None:
    port, file, pem = free_port(), open_folder / "new.toml", open_folder / "none.pem"
    pem.write_text("no certificate")
    pem.chmod(0o644)
    with Lbfast(_with_web(port, server), allow_stderr=True) as lb:
        web = lb.wait_replaced("web", 0)
        file.write_text(lb.config_path.read_text().replace("web = {", f'web = {{ certificate = "{pem}",'))
        code, _, err = lb.cli("commit", str(file))
        assert code != 0
        assert f'web . certificate: found "{pem}", expected a PEM file with the certificate and its chain' in err
        assert lb.call("history")["version"] == 1
        assert lb.child("web") == web


def _with_web(port: int, server: TcpServer, **web: str) -> str:
    service = virtual_service(port, [real_server("one", server.port)])
    web_table = {"address": "127.0.0.1", "port": free_port()} | web
    return render_toml({"workers": 1, "web": web_table, "virtual_service": [service]})


def test_a_port_in_use_names_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        file = tmp_path / "bad.toml"
        file.write_text(GOOD.replace("{port}", str(port)))
        code, out, err = _lbfast(tmp_path, "run", "--config", str(file))
    assert (code, out) == (2, "")
    assert f"{file}:6:" in err
    assert "ports" in err
    assert f"pid {os.getpid()}" in err or str(os.getpid()) in err
    _assert_nothing_started(tmp_path, port)


def test_a_second_lbfast_on_the_same_directories_is_refused_and_the_first_goes_on(server: TcpServer) -> None:
    port = free_port()
    with Lbfast(_config(port, server)) as lb:
        other = lb.directory / "other.toml"
        other.write_text(GOOD.replace("{port}", str(free_port())))
        code, out, err = lb.cli("run", "--config", str(other))
        assert (code, out) == (1, "")
        assert f"already running here as process {lb.pid}" in err
        assert "LBFAST_RUNTIME_DIR" in err
        assert lb.call("version")["pid"] == lb.pid
        with connect(port) as sock:
            assert read_line(sock) == b"one\n"


def test_unknown_labels_name_the_nearest_and_change_nothing(server: TcpServer) -> None:
    with Lbfast(_config(free_port(), server)) as lb:
        before = lb.call("overview")
        for words, expected, hint in (
            (("drain", "Symfony", "Server 1"), 1, 'did you mean "Symphony"?'),
            (("halt", "Symphony", "server 1"), 1, 'did you mean "Server 1"?'),
            (("health", "Symphony", "nonsense"), 1, '"Server 1"'),
            (("persistence", "pin", "Symphony", "10.0.0.300", "Server 1"), 2, "10.0.0.300"),
            (("persistence", "clear", "Symphony", "--client", "10.0.0.1/99"), 2, "10.0.0.1/99"),
        ):
            code, out, err = lb.cli(*words)
            assert (code, out) == (expected, ""), words
            assert hint in err, words
            assert err.count("\n") == 1
        code, out, err = lb.cli("weight", "Symphony", "Server 1", "257")
        assert (code, out) == (2, "")
        assert "256" in err
        assert lb.call("overview") == before


@pytest.mark.parametrize("words", [("overview",), ("drain", "A", "B"), ("explain", "A", "10.0.0.1"), ("events",)])
def test_without_a_running_lbfast_verbs_say_so_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = _lbfast(tmp_path, *words)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert str(tmp_path / "run" / "control.sock") in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv (util-linux)")
@pytest.mark.parametrize("variable", ["LBFAST_RUNTIME_DIR", "LBFAST_STATE_DIR"])
def test_an_ordinary_user_without_the_right_to_its_directories_is_told_which(variable: str, open_folder: Path) -> None:
    mine, open_ = open_folder / "mine", open_folder / "open"
    mine.mkdir(mode=0o755)
    open_.mkdir()
    open_.chmod(0o777)
    port = free_port()
    file = open_folder / "good.toml"
    file.write_text(GOOD.replace("{port}", str(port)))
    places = {"LBFAST_RUNTIME_DIR": str(open_ / "run"), "LBFAST_STATE_DIR": str(open_ / "state")}
    places[variable] = str(mine / "lbfast")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    code, out, err = _lbfast(open_folder, "run", "--config", str(file), prefix=user, env=places)
    assert (code, out) == (1, ""), err
    assert str(mine / "lbfast") in err
    assert variable in err
    assert not (mine / "lbfast").exists()


@pytest.mark.root
def test_a_decision_that_cannot_be_kept_is_refused_and_not_applied(server: TcpServer, tmp_path: Path) -> None:
    """The state directory's disk is full: drain fails and says so, the server stays as it was."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(state)], check=True)
    try:
        with Lbfast(_config(free_port(), server), directory=tmp_path) as lb:
            assert lb.call("weight", service="Symphony", real="Server 1", weight=50)["weight"] == 50
            _fill(state / "ballast")
            code, out, err = lb.cli("drain", "Symphony", "Server 1", "--reason", "x" * 400)
            assert (code, out) == (1, "")
            assert "nothing was changed" in err
            assert "No space left on device" in err
            real = lb.call("overview")["virtual_services"][0]["real_servers"][0]
            assert (real["admin"], real["state"], real["weight"]) == ("online", "up", 50)
            (state / "ballast").unlink()
            assert lb.json("drain", "Symphony", "Server 1")["admin"] == "drain"
        with Lbfast(_config(free_port(), server), directory=tmp_path) as lb:
            real = lb.call("overview")["virtual_services"][0]["real_servers"][0]
            assert (real["admin"], real["weight"]) == ("drain", 50)
    finally:
        subprocess.run(["umount", str(state)], check=True)


def _config(port: int, server: TcpServer) -> str:
    return render_toml(
        {"workers": 1, "virtual_service": [virtual_service(port, [real_server("Server 1", server.port)])]}
    )


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            return


def _lbfast(
    folder: Path, *words: str, prefix: list[str] | None = None, env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    places = {"LBFAST_RUNTIME_DIR": str(folder / "run"), "LBFAST_STATE_DIR": str(folder / "state")}
    done = subprocess.run(
        [*(prefix or []), sys.executable, "-m", "lbfast", *words],
        env=os.environ | places | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=scaled(30),
        cwd=folder,
    )
    return done.returncode, done.stdout, done.stderr


def _assert_nothing_started(folder: Path, port: int) -> None:
    """Nobody listens, and no file was left but empty directories."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    left = [path for place in ("run", "state") for path in (folder / place).rglob("*") if path.is_file()]
    assert left == []
