"""A worker's filter in the kernel: forbidden calls are refused, what Python does in a worker goes on.

Each test runs in a child of its own, because a filter stays for good.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import gc
import mmap
import os
import platform
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from lbfast._stick import StickTable
from lbfast.supervisor import capabilities
from lbfast.supervisor.bpf import Check, Rules, assemble
from lbfast.supervisor.capabilities import Capability, forbid_new_privileges
from lbfast.supervisor.channel import Channel
from lbfast.supervisor.preload import import_late
from lbfast.supervisor.privileges import Privileges, User
from lbfast.supervisor.seccomp import _attach, _Program, confine_worker, this_machine

machine = this_machine()
pytestmark = pytest.mark.skipif(machine is None, reason="no table of system calls for this architecture")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def in_child(work: Callable[[], object]) -> int:
    """Run it in a child; its wait status.  0 when it returned, 1 when it raised, and then the traceback is shown."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def confined(work: Callable[[], object]) -> int:
    def run() -> None:
        import_late()
        assert machine is not None
        assert confine_worker(machine, os.getpid()) is None
        work()

    return in_child(run)


def libc(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


PTRACE_TRACEME, CLONE_NEWUSER = 0, 0x10000000
FORBIDDEN: dict[str, Callable[[], object]] = {
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "thread": lambda: threading.Thread(target=int).start(),
    "open to write": lambda: os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC),
    "open to read": lambda: os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC),
    "mkdir": lambda: os.mkdir(os.path.join(tempfile.gettempdir(), "lbfast-forbidden")),
    "unlink": lambda: os.unlink("/tmp/lbfast-there-is-no-such-file"),
    "stat": lambda: os.stat("/etc/passwd"),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "ptrace": lambda: libc("ptrace", PTRACE_TRACEME, 0, 0, 0),
    "process_vm_readv": lambda: libc("process_vm_readv", os.getpid(), 0, 0, 0, 0, 0),
    "signal to another": lambda: os.kill(os.getppid(), signal.SIGUSR1),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "namespace": lambda: libc("unshare", CLONE_NEWUSER),
    "memfd": lambda: os.memfd_create("x", os.MFD_CLOEXEC),
    "setuid": lambda: libc("setuid", 0),
    "prctl": lambda: capabilities.prctl(4, 1),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_refused(name: str) -> None:
    def attempt() -> None:
        try:
            FORBIDDEN[name]()
        except PermissionError:
            return
        except (RuntimeError, ValueError) as error:  # how Python says that it gets no thread, no higher limit
            assert str(error) in ("can't start new thread", "not allowed to raise maximum limit")
            return
        raise AssertionError(f"{name} was not refused")

    assert confined(attempt) == 0


def test_python_goes_on() -> None:
    """Memory, time, descriptors, garbage, an exception told with its traceback."""

    def work() -> None:
        block = bytearray(64 << 20)
        block += bytes(64 << 20)
        cycle: list[object] = [bytes(1 << 20) for _ in range(50)]
        cycle.append(cycle)
        del block, cycle
        gc.collect()
        time.sleep(0.01)
        one, other = os.pipe2(os.O_CLOEXEC)
        os.close(os.dup(one))
        os.write(other, b"x")
        assert os.read(one, 1) == b"x"
        try:
            raise ValueError("told")
        except ValueError:
            assert "told" in traceback.format_exc()

    assert confined(work) == 0


def test_a_signal_is_handled() -> None:
    def work() -> None:
        seen: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
        pid = os.getpid()
        os.write(writing, b"%d" % pid)
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            time.sleep(0.005)
        assert seen == [signal.SIGTERM]

    reading, writing = os.pipe2(os.O_CLOEXEC)
    killer = threading.Thread(target=lambda: os.kill(int(os.read(reading, 16)), signal.SIGTERM))
    killer.start()
    try:
        assert confined(work) == 0
    finally:
        killer.join()
        os.close(reading)
        os.close(writing)


def test_a_table_that_comes_through_the_channel_is_attached() -> None:
    """What a commit asks of a worker: receive a descriptor, map it, use it."""
    ours, theirs = Channel.pair()
    table = StickTable.create(64)

    def work() -> None:
        received = theirs.receive_fds(5.0)
        assert received is not None
        attached = StickTable.attach(received[1][0])
        attached.pin("192.0.2.1", 1, 0, 0)
        theirs.send({"event": "switched"})

    ours.send({"do": "listen"}, [table.fd])
    assert confined(work) == 0
    assert ours.receive(1.0) == {"event": "switched"}
    assert table.get("192.0.2.1") is not None
    ours.close()
    theirs.close()


PRCTL = {"x86_64": 157, "aarch64": 167}


@pytest.mark.parametrize("way", ["seccomp and prctl", "seccomp"])
def test_where_no_filter_may_be_set_it_is_said(way: str) -> None:
    """As in a container, or under a unit, that refuses the call; the older prctl is tried, too."""
    assert machine is not None
    prctl = PRCTL[platform.machine()]
    allowed = set(range(600)) - {machine.seccomp, prctl}
    options = (Check(0, (38,) if way == "seccomp and prctl" else (22, 38)),)
    steps = assemble(machine.arch, Rules(allowed, {prctl: options}), errno.EPERM)

    def work() -> None:
        forbid_new_privileges()
        _attach(machine, _Program(len(steps) // 8, steps))
        said = confine_worker(machine, os.getpid())
        if way == "seccomp":
            assert said is None
            with pytest.raises(PermissionError):
                os.fork()
        else:
            assert str(said).startswith("workers have no system call filter: the kernel refuses it (prctl: Operation")
            assert "SystemCallFilter= has to allow seccomp" in str(said)

    assert in_child(work) == 0


def test_another_architecture_is_said() -> None:
    assert "none is written for" in str(confine_worker(None, os.getpid()))


def test_an_abort_is_an_abort() -> None:
    def work() -> None:
        faulthandler.disable()  # pytest's: it would tell of it
        os.abort()

    assert os.WTERMSIG(confined(work)) == signal.SIGABRT


# --- giving rights up -----------------------------------------------------------------------------


@pytest.fixture
def nobody() -> Iterator[User]:
    yield User("nobody", 65534, 65534)


def rights() -> dict[str, str]:
    with open("/proc/self/status") as status:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in status)}


@needs_root
def test_a_worker_keeps_one_capability_at_most(nobody: User) -> None:
    kept = {Capability.SYS_RESOURCE} & capabilities.held()

    def work() -> None:
        Privileges(nobody, is_privileged=True).drop_worker()
        found = rights()
        assert found["Uid"].split() == ["65534"] * 4
        assert found["Gid"].split() == ["65534"] * 4
        assert found["Groups"] == ""
        mask = f"{sum(1 << number for number in kept):016x}"
        assert [found[key] for key in ("CapPrm", "CapEff", "CapBnd")] == [mask] * 3
        assert found["CapInh"] == found["CapAmb"] == f"{0:016x}"
        assert found["NoNewPrivs"] == "1"
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        assert resource.getrlimit(resource.RLIMIT_NPROC) == (0, 0)
        with pytest.raises(PermissionError):
            os.setuid(0)

    assert in_child(work) == 0


@needs_root
def test_control_that_stays_root_only_reaches_files(nobody: User) -> None:
    def work() -> None:
        Privileges(nobody, is_privileged=True, keeps_control=True).drop_control()
        assert capabilities.held() == {Capability.DAC_OVERRIDE}
        assert os.getuid() == 0
        with pytest.raises(PermissionError):
            os.chown("/dev/null", 1, 1)

    assert in_child(work) == 0


@needs_root
def test_started_by_a_user_with_capabilities(nobody: User) -> None:
    """As under systemd with User= and AmbientCapabilities=: nobody else is become, the capabilities still go."""

    def work() -> None:
        capabilities.become_user(nobody.uid, nobody.gid)
        capabilities.keep_only({Capability.NET_ADMIN, Capability.NET_RAW})
        assert capabilities.held() == {Capability.NET_ADMIN, Capability.NET_RAW}
        Privileges(None, is_privileged=True).drop_health()
        assert capabilities.held() == frozenset()
        assert rights()["NoNewPrivs"] == "1"

    assert in_child(work) == 0


def test_without_capabilities_a_child_stays_as_it_is() -> None:
    """Check scripts of an ordinary user may go on using sudo."""

    def work() -> None:
        before = rights()
        Privileges(None).drop_health()
        after = rights()
        assert [before[key] for key in ("Uid", "CapEff", "NoNewPrivs")] == [
            after[key] for key in ("Uid", "CapEff", "NoNewPrivs")
        ]

    assert in_child(work) == 0
