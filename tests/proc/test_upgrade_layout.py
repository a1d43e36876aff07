"""A new program whose shared memory is laid out otherwise: built for the test, memory migrated, connections kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, Lbfast, free_port, real_server, virtual_service, wait_for
from live_world import NAMES, Load, named_servers, text_of
from servers import TcpServer, connect, read_line

from lbfast.control.client import Client, ControlUnavailable

STEP = '''

def _wider_lines(fd: int) -> int:
    """Version 2 to 3: 64 more bytes at the head of each page."""
    old, new, pages = 256 + 4096 * 64 + 32768 * 64, 320 + 4096 * 64 + 32768 * 64, 512
    size = (128 + pages * new + 4095) & ~4095
    wider = os.memfd_create("counters", os.MFD_CLOEXEC)
    os.ftruncate(wider, size)
    head = bytearray(os.pread(fd, 128, 0))
    struct.pack_into("<I", head, 24, 3)
    struct.pack_into("<Q", head, 32, size)
    os.pwrite(wider, head, 0)
    for page in range(struct.unpack_from("<I", head, 64)[0]):
        os.pwrite(wider, os.pread(fd, old, 128 + page * old), 128 + page * new + 64)
    return wider


STEPS = MappingProxyType({("counters", 2): _wider_lines})
'''


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``old`` is the tree, ``new`` one whose counters have another layout."""
    folder = tmp_path_factory.mktemp("programs")
    leave_out = shutil.ignore_patterns("*.c", "__pycache__")
    for name in ("old", "new"):
        shutil.copytree(ROOT / "lbfast", folder / name / "lbfast", ignore=leave_out)
    new = folder / "new"
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, new)
    pxd = new / "lbfast" / "_counters.pxd"
    text = pxd.read_text()
    assert "COUNTERS_VERSION = 2" in text
    text = text.replace("COUNTERS_VERSION = 2", "COUNTERS_VERSION = 3")
    text = text.replace("cdef struct WorkerLine:\n", "cdef struct WorkerLine:\n    uint8_t novelty[64]\n")
    pxd.write_text(text)
    migrate = new / "lbfast" / "supervisor" / "migrate.py"
    migrate.write_text(migrate.read_text() + STEP)
    (new / "lbfast" / "__init__.py").write_text('"""The next one."""\n\n__version__ = "9.9"\n')
    for module in (new / "lbfast").glob("*.so"):
        module.unlink()
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=new,
        check=True,
        capture_output=True,
        env=os.environ | {"CFLAGS": "-O0", "LBFAST_DEBUG": "0", "LBFAST_SANITIZE": "0", "LBFAST_TEST_EXT": "0"},
    )
    return folder


@pytest.fixture
def servers() -> Iterator[dict[str, TcpServer]]:
    with named_servers() as running:
        yield running


@pytest.mark.timeout(400)
def test_the_memory_is_migrated_and_no_connection_is_cut(
    programs: Path, servers: dict[str, TcpServer], tmp_path: Path
) -> None:
    port, current = free_port(), tmp_path / "current"
    current.symlink_to(programs / "old")
    service = virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])
    env = {"PYTHONPATH": str(current), "PYTHONDONTWRITEBYTECODE": "1"}
    with Lbfast(text_of([service]), env=env, allow_stderr=True) as lb:
        socks = {f"127.9.9.{host}": connect(port, source=f"127.9.9.{host}") for host in range(1, 31)}
        homes = {source: read_line(sock).decode().strip() for source, sock in socks.items()}
        lb.call("drain", service="Symphony", real="R2", reason="patching")
        lb.call("persistence_pin", service="Symphony", client="10.9.8.7", real="R3")
        before = {it["id"]: it["client"] for it in lb.call("connections", service="Symphony")["connections"]}
        accepted = lb.call("statistics")["virtual_services"][0]["accepted"]
        old = set(lb.children().values())
        with Load(port) as load:
            current.unlink()
            current.symlink_to(programs / "new")
            with pytest.raises(ControlUnavailable):  # control is one of those that stand still
                Client(lb.runtime_dir / "control.sock", timeout=60).call("upgrade")
            wait_for(lambda: lb.call("version")["version"] == "9.9", 30, "the new program")
            wait_for(lambda: not old & set(lb.children().values()), 30, "the old processes to be gone")
            seen = load.visits
            wait_for(lambda: load.visits > seen + 10, what="new clients")
        assert load.failures == []
        assert load.split == {}
        for source, sock in socks.items():
            sock.sendall(b"after\n")
            assert read_line(sock) == b"after\n"
            entry = lb.call("persistence_show", service="Symphony", client=source)["entries"][0]
            assert (entry["real"], entry["connections"]) == (homes[source], 1)
        after = {it["id"]: it["client"] for it in lb.call("connections", service="Symphony")["connections"]}
        assert before.items() <= after.items()
        assert lb.call("statistics")["virtual_services"][0]["accepted"] > accepted
        wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 30, what="30 connections")
        reals = {it["label"]: it for it in lb.call("overview")["virtual_services"][0]["real_servers"]}
        assert (reals["R2"]["admin"], reals["R1"]["state"]) == ("drain", "up")
        pinned = lb.call("persistence_show", service="Symphony", client="10.9.8.7")["entries"][0]
        assert (pinned["real"], pinned["pinned"]) == ("R3", True)
        for sock in socks.values():
            sock.close()
        wait_for(lambda: lb.call("overview")["virtual_services"][0]["connections"] == 0, what="all given back")
        entries = lb.call("persistence_show", service="Symphony")["entries"]
        assert sum(entry["connections"] for entry in entries) == 0
