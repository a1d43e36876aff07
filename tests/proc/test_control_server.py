"""The control socket with real clients: framing, refusals, fuzz, followers, the socket file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import scaled, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))  # the small world is shared with the unit tests
from control_world import World, slab_record

from lbfast.control import protocol
from lbfast.control import server as server_module
from lbfast.control.access import Access
from lbfast.control.client import Client, ControlError, ControlUnavailable
from lbfast.control.server import ControlServer
from lbfast.control.socket_file import SocketFile

OWN = Access(frozenset({os.geteuid()}))
VS, R1 = "Symphony", "Symphony Server 1"


class Running:
    """A control server on a loop in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "control.sock"
        self.world = World(directory / "state")
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(self.world.engine, SocketFile(self.path), OWN)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self._server.start())

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(scaled(10))

    def soon(self, call: Any) -> Any:
        """Call something on the loop's thread."""

        async def run() -> Any:
            return call()

        return self._do(run())

    def announce(self, message: str) -> None:
        self.soon(lambda: self.world.engine.announce(message))

    def close(self) -> None:
        self._do(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("c"))
    yield running
    running.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def raw(path: Path, data: bytes) -> list[Any]:
    """Send bytes, say no more, and read every answer until the server closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(scaled(10))
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        answers = []
        with contextlib.suppress(ConnectionResetError), sock.makefile("rb") as lines:
            answers = [json.loads(line) for line in lines]
        return answers


def test_every_verb_over_the_socket(running: Running) -> None:
    client = Client(running.path)
    assert [vs["label"] for vs in client.call("overview")["virtual_services"]] == [VS, "Röntgen ☢", "Plain"]
    assert client.call("drain", service=VS, real=R1, reason="pätch")["state"] == "drain"
    assert client.call("halt", service=VS, real=R1, reason=None)["state"] == "halt"
    assert client.call("online", service=VS, real=R1)["state"] == "up"
    assert client.call("weight", service=VS, real=R1, weight=5)["weight"] == 5
    assert client.call("persistence_pin", service=VS, client="10.1.1.1", real=R1)["pinned"] is True
    assert client.call("persistence_show", service=VS)["count"] == 1
    assert client.call("explain", service=VS, client="10.1.1.1")["real"] == R1
    assert client.call("persistence_clear", service=VS) == {"removed": 1}
    assert client.call("connections", service=VS) == {"connections": []}
    assert client.call("health", service=VS, real=R1)["health"] == "up"
    assert client.call("statistics")["workers"][1]["index"] == 1
    assert client.call("version")["pid"] == 4711
    messages = [event["message"] for event in client.call("events")["events"]]
    assert messages[0].startswith("drained by root at ")
    assert messages[-1] == "1 persistence entries cleared by root"


def test_an_answer_of_many_connections(running: Running) -> None:
    running.world.shared.slabs[0].records = [slab_record(id=number) for number in range(20_000)]
    assert len(Client(running.path).call("connections", service=VS)["connections"]) == 20_000


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b"hello", "bad_request", "not JSON"),
        (b"\xff\xfe{}", "bad_request", "not UTF-8 at byte 0"),
        (b"[]", "bad_request", "found a list"),
        (b"{}", "bad_request", "needs a verb"),
        (b'{"verb":7}', "bad_request", "must be text"),
        (b'{"verb":"overview","args":[]}', "bad_request", "args must be a JSON object"),
        (b'{"verb":"overview","arg":{}}', "bad_request", "found also 'arg'"),
        (b'{"verb":"weight","args":{"weight":NaN}}', "bad_request", "NaN"),
        (b"[" * 200_000, "bad_request", "nested too deeply"),
        (b'{"verb":"overvew"}', "unknown_verb", "there are overview, drain"),
        (
            b'{"verb":"weight","args":{"service":"Symphony","real":"x","weight":' + b"9" * 5000 + b"}}",
            "bad_request",
            "",
        ),
        (b'{"verb":"drain","args":{"service":"Symphony"}}', "bad_argument", "real is missing"),
        (b'{"verb":"events","args":{"follow":1}}', "bad_argument", "follow: expected true or false"),
        (b'{"verb":"events","args":{"follow":true,"x":1}}', "bad_argument", "unknown argument"),
    ],
)
def test_bad_requests_are_answered_and_the_next_one_too(
    shared_server: Running, line: bytes, code: str, message: str
) -> None:
    answers = raw(shared_server.path, line + b"\n\n" + b'{"verb":"version"}\n')
    assert answers[0]["ok"] is False
    assert answers[0]["error"]["code"] == code
    assert message in answers[0]["error"]["message"]
    assert answers[1]["ok"] is True


def test_an_oversize_line_is_refused(shared_server: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(scaled(10))
        sock.connect(str(shared_server.path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(b"x" * (3 * protocol.MAX_REQUEST))
        with sock.makefile("rb") as lines:
            assert json.loads(lines.readline())["error"]["message"] == "a request has at most 1048576 bytes"
    with pytest.raises(ControlError, match="at most 1048576"):
        Client(shared_server.path).call("drain", service="x" * protocol.MAX_REQUEST)


_FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@_FUZZ
@given(st.binary(max_size=3000))
def test_random_bytes_never_harm(shared_server: Running, data: bytes) -> None:
    for answer in raw(shared_server.path, data):
        assert answer["error"]["code"] in protocol.ERROR_CODES
    assert Client(shared_server.path).call("version")["pid"] == 4711


@_FUZZ
@given(
    st.sampled_from([*server_module.VERBS, "nonsense", ""]) | st.text(max_size=9),
    st.dictionaries(
        st.sampled_from(["service", "real", "client", "weight", "limit", "follow", "reason"]) | st.text(max_size=5),
        _JSON | st.sampled_from([VS, R1, "10.0.0.1", "10.0.0.0/8", "::1", True, 5]),
        max_size=5,
    ),
)
def test_random_requests_get_one_answer_with_a_known_code(shared_server: Running, verb: str, args: Any) -> None:
    args.pop("follow", None) if args.get("follow") is True else None
    answers = raw(shared_server.path, json.dumps({"verb": verb, "args": args}).encode() + b"\n")
    assert len(answers) == 1
    if not answers[0]["ok"]:
        assert answers[0]["error"]["code"] in protocol.ERROR_CODES - {"internal"}


def test_half_a_request_is_none(running: Running) -> None:
    assert raw(running.path, b'{"verb":"drain","args":{"service":"Symphony","real":"Symphony Server 1"}}') == []
    assert running.world.call("overview")["virtual_services"][0]["real_servers"][0]["state"] == "up"


def test_follow_gets_what_happens_until_the_client_closes(running: Running) -> None:
    running.announce("before")
    stream = Client(running.path).stream("events", follow=True, limit=1)
    assert next(stream)["message"] == "before"
    running.announce("now")
    assert next(stream)["message"] == "now"
    stream.close()  # type: ignore[attr-defined]
    wait_for(lambda: running.world.stream.followers == 0, what="the follower to be forgotten")


def test_follow_refused_raises(running: Running) -> None:
    with pytest.raises(ControlError, match="limit: expected 0 to 1000"):
        next(Client(running.path).stream("events", follow=True, limit=1001))


def test_a_follower_that_reads_nothing_stops_nobody_and_is_told(running: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lazy:
        lazy.settimeout(scaled(10))
        lazy.connect(str(running.path))
        lazy.sendall(protocol.encode_request("events", {"follow": True}))
        wait_for(lambda: running.world.stream.followers == 1)
        for _ in range(10):
            running.soon(lambda: [running.world.engine.announce("x" * 300) for _ in range(1000)])
            assert Client(running.path, timeout=scaled(5)).call("version")["pid"] == 4711
        count = missed = 0
        with lazy.makefile("rb") as lines:
            while count + missed < 10_000:
                record = json.loads(lines.readline())["result"]
                missed += record.get("missed", 0)
                count += "missed" not in record
        assert missed > 0
        assert count + missed == 10_000


def test_too_many_clients_are_told_so(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CLIENTS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(str(running.path))
            sock.sendall(b'{"verb":"version"}\n')
            assert sock.recv(65_536)
        with pytest.raises(ControlError) as caught:
            Client(running.path).call("version")
        assert caught.value.code == "busy"
    wait_for(lambda: _answers(running.path))


def _answers(path: Path) -> bool:
    try:
        return bool(Client(path).call("version"))
    except ControlError:
        return False


def test_an_idle_client_is_let_go(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE_S", 0.02)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(scaled(10))
        sock.connect(str(running.path))
        assert sock.recv(1) == b""


def test_a_bug_in_a_verb_is_an_answer(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    running.world.engine.about = None  # type: ignore[assignment]
    with pytest.raises(ControlError) as caught:
        Client(running.path).call("version")
    assert caught.value.code == "internal"
    assert "AttributeError" in capfd.readouterr().err
    assert Client(running.path).call("overview")


def test_socket_file_mode_and_removal(tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        mode = os.stat(running.path).st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)
        assert os.listdir(tmp_path) == ["control.sock"]  # no temporary name is left
        with pytest.raises(ValueError, match="another lbfast answers there"):
            asyncio.run(ControlServer(running.world.engine, SocketFile(running.path), OWN).start())
        assert Client(running.path).call("version")
    finally:
        running.close()
    assert not running.path.exists()


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    running = Running(tmp_path)
    assert Client(path).call("version")
    running.close()
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="not a socket"):
        asyncio.run(ControlServer(running.world.engine, SocketFile(path), OWN).start())
    assert path.read_text() == "precious"


def test_the_successors_socket_is_not_removed(tmp_path: Path) -> None:
    running = Running(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as successor:
        successor.bind(str(tmp_path / "new"))
        os.rename(tmp_path / "new", running.path)
        running.close()
        assert running.path.exists()


def test_client_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(ControlUnavailable, match=f"{path} does not exist; start it with `lbfast run"):
        Client(path).call("version")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        with pytest.raises(ControlUnavailable, match=f"nobody answers on {path}"):
            Client(path).call("version")
        sock.listen()
        with pytest.raises(ControlUnavailable, match=r"did not answer 'version' within 0\.05 s"):
            Client(path, timeout=0.05).call("version")
    with pytest.raises(ControlUnavailable, match="LBFAST_RUNTIME_DIR to a shorter"):
        Client(tmp_path / ("x" * 120)).call("version")
    with pytest.raises(ControlUnavailable, match="not a directory"):
        Client(Path("/dev/null/control.sock")).call("version")


def test_client_when_control_dies_before_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()

        def accept_and_close() -> None:
            peer, _ = sock.accept()
            peer.recv(65_536)
            peer.close()

        thread = threading.Thread(target=accept_and_close)
        thread.start()
        with pytest.raises(ControlUnavailable, match="closed the connection before it answered 'version'"):
            Client(path).call("version")
        thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="root may connect anywhere; the test becomes another user")
def test_client_without_permission(running: Running) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chmod(running.path.parent, 0o755)
            os.setgroups([])
            os.setresgid(65_534, 65_534, 65_534)
            os.setresuid(65_534, 65_534, 65_534)
            Client(running.path).call("version")
        except ControlUnavailable as error:
            code = 0 if "permission denied" in str(error) and "65534" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_client_is_light() -> None:
    import subprocess

    code = (
        "import sys, lbfast.control.client; print(sorted({'pydantic','asyncio','rich','tomlkit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
