"""Calls that fail in mid-relay: with a debug build and its fault doors, bytes are right or the reset is honest.

The debug build is made once for each state of the sources, in build/faults; the scenarios run in a
process of their own (this file as a program), so that two builds never meet.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1 << 20
Arms = list[tuple[str, int, int, int]]

# An EAGAIN is not among them: without a socket that is full, or empty, no edge would follow it.  Slow
# readers (tests/proc/test_relay_flow.py) make real ones.
# door, calls that pass first, calls that fail, errno; then what must come of it.
SCENARIOS: dict[str, tuple[Arms, str]] = {
    "nothing": ([], "bytes"),
    "splice_in EINTR": ([("splice_in", 2, 3, errno.EINTR)], "bytes"),
    "splice_in EINVAL": ([("splice_in", 1, 1, errno.EINVAL)], "bytes"),
    "splice_in ENOSYS at once": ([("splice_in", 0, 1, errno.ENOSYS)], "bytes"),
    "splice_in ENOMEM": ([("splice_in", 1, 2, errno.ENOMEM)], "bytes"),
    "splice_in ECONNRESET": ([("splice_in", 2, 1, errno.ECONNRESET)], "reset"),
    "splice_out EINTR": ([("splice_out", 2, 3, errno.EINTR)], "bytes"),
    "splice_out ECONNRESET": ([("splice_out", 2, 1, errno.ECONNRESET)], "reset"),
    "splice_out EPIPE": ([("splice_out", 1, 1, errno.EPIPE)], "reset"),
    "pipe EMFILE": ([("pipe", 0, 1_000, errno.EMFILE)], "copied"),
    "pipe ENFILE": ([("pipe", 0, 1_000, errno.ENFILE)], "copied"),
    "pipe EPERM": ([("pipe", 0, 1_000, errno.EPERM)], "copied"),
    "recv EINTR": ([("recv", 0, 2, errno.EINTR)], "bytes"),
    "recv ENOMEM": ([("recv", 0, 1, errno.ENOMEM)], "reset at once"),
    "send EINTR": ([("send", 0, 2, errno.EINTR)], "bytes"),
    "send ENOBUFS": ([("send", 0, 1, errno.ENOBUFS)], "reset at once"),
    "socket EMFILE": ([("socket", 0, 1, errno.EMFILE)], "refused"),
    "socket ENFILE": ([("socket", 0, 1, errno.ENFILE)], "refused"),
    "socket ENOBUFS": ([("socket", 0, 1, errno.ENOBUFS)], "refused"),
    "connect EADDRNOTAVAIL": ([("connect", 0, 9, errno.EADDRNOTAVAIL)], "refused"),
    "connect ECONNREFUSED once": ([("connect", 0, 1, errno.ECONNREFUSED)], "bytes"),
    "epoll ENOMEM for the client": ([("epoll", 2, 1, errno.ENOMEM)], "refused"),
    "epoll ENOMEM for the server": ([("epoll", 3, 1, errno.ENOMEM)], "refused"),
    "epoll ENOSPC for the server": ([("epoll", 3, 1, errno.ENOSPC)], "refused"),
    "accept EMFILE": ([("accept", 0, 3, errno.EMFILE)], "bytes"),
    "accept ECONNABORTED": ([("accept", 0, 3, errno.ECONNABORTED)], "bytes"),
}


def relay_through(plane: Any) -> dict[str, Any]:
    """A request up, 4 MB down in pieces that are acknowledged one by one; how each side fared."""
    data = os.urandom(MEGABYTE)
    result: dict[str, Any] = {"client": "bytes", "server": "bytes"}
    is_over = threading.Event()

    def serve() -> None:
        try:
            server = accept(plane, is_over)
            server.settimeout(5)
            for _ in range(4):
                assert server.recv(1) == b"+"
                server.sendall(data)
            assert server.recv(1) == b"+"
            server.shutdown(1)
            assert server.recv(1) == b""
        except ConnectionError:
            result["server"] = "reset"
        except (AssertionError, OSError) as error:
            result["server"] = f"{type(error).__name__} {error}"

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        talk(plane, hashlib.sha256(data * 4).hexdigest())
    except ConnectionError:
        result["client"] = "reset"
    except (AssertionError, OSError) as error:
        result["client"] = f"{type(error).__name__} {error}"
    is_over.set()
    thread.join()
    return result


def accept(plane: Any, is_over: threading.Event) -> Any:
    """The server's connection, however late; AssertionError when there is none and the client has given up."""
    while True:
        is_last = is_over.is_set()
        try:
            return plane.accept(0.2)
        except AssertionError:
            if is_last:
                raise


def talk(plane: Any, wanted: str) -> None:
    client, digest = plane.connect(timeout=5), hashlib.sha256()
    for _ in range(4):
        client.sendall(b"+")
        left = MEGABYTE
        while left:
            part = client.recv(min(left, 65_536))
            assert part, f"an orderly end with {left} bytes missing"
            digest.update(part)
            left -= len(part)
    client.sendall(b"+")
    assert client.recv(1) == b""
    assert digest.hexdigest() == wanted
    client.shutdown(1)


def run_scenario(arms: Arms) -> dict[str, Any]:
    from data_plane import DataPlane, RealPort
    from stick_doors import cshim

    assert cshim.HAS_FAULTS

    def prepare() -> None:
        for arm in arms:
            cshim.arm(*arm)

    with RealPort() as real, RealPort() as other:
        with DataPlane([real, other], prepare=prepare, retries=2) as plane:
            result = relay_through(plane)
            names = ("no_descriptors", "no_memory", "no_ports", "no_pipes", "spliced_bytes", "copied_bytes")
            result |= {name: plane.total(name) for name in names}
    return result  # the plane has seen that all was given back


def run_all() -> None:
    results = {}
    for name, (arms, _) in SCENARIOS.items():
        try:
            results[name] = run_scenario(arms)
        except BaseException as error:
            results[name] = {"client": f"{type(error).__name__}: {error}", "server": ""}
    print(json.dumps(results))


def sources() -> list[Path]:
    inside = [p for kind in ("pyx", "pxd", "h", "py", "pyi") for p in (ROOT / "lbfast").rglob(f"*.{kind}")]
    names = ("_cshim.pyx", "_cshim_clock.pxi", "data_plane.py", "servers.py", "waiting.py", "cython/stick_doors.py")
    return sorted([*inside, ROOT / "setup.py", *(ROOT / "tests" / name for name in names), Path(__file__)])


def debug_build() -> Path:
    """The tree of a debug build of the present sources; made unless it is there."""
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources())).hexdigest()[:16]
    home = ROOT / "build" / "faults"
    if (home / digest / "done").exists():
        return home / digest
    shutil.rmtree(home, ignore_errors=True)
    for path in sources():
        target = home / digest / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    env = os.environ | {"LBFAST_DEBUG": "1", "LBFAST_TEST_EXT": "1", "CFLAGS": "-O0 -g0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=home / digest, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3_000:]
    (home / digest / "done").touch()
    return home / digest


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(here), str(here / "tests"), str(here / "tests" / "cython")]
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)  # all modules share one set of doors
    run_all()
else:
    import pytest

    @pytest.fixture(scope="session")
    def outcomes() -> dict[str, Any]:
        if shutil.which(os.environ.get("CC", "cc")) is None:
            pytest.skip("needs a C compiler for the debug build")
        pytest.importorskip("Cython")
        home = debug_build()
        env = os.environ | {"PYTHONPATH": str(home)}
        command = [sys.executable, str(home / "tests" / "cython" / Path(__file__).name)]
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-3_000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
        "bytes": lambda o: (o["client"], o["server"]) == ("bytes", "bytes"),
        "copied": lambda o: (o["client"], o["server"], o["spliced_bytes"]) == ("bytes", "bytes", 0) and o["no_pipes"],
        "reset": lambda o: (o["client"], o["server"]) == ("reset", "reset"),
        # The handshake's last segment travels with the first bytes: a server that gets none may not see the connection.
        "reset at once": lambda o: (
            o["client"] == "reset" and (o["server"] == "reset" or "no connection" in o["server"])
        ),
        "refused": lambda o: o["client"] == "reset" and o["no_descriptors"] + o["no_memory"] + o["no_ports"] > 0,
    }

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_fault(name: str, outcomes: dict[str, Any]) -> None:
        outcome = outcomes[name]
        assert CHECKS[SCENARIOS[name][1]](outcome), outcome
