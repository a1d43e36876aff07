"""Starts real lbfast processes for tests, and checks that they leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ports import free_port, free_ports
from waiting import (
    TIMEOUT_SCALE,
    children_of,
    cpu_seconds,
    fd_census,
    is_running,
    processes_of_session,
    scaled,
    wait_for,
)

__all__ = [
    "TIMEOUT_SCALE",
    "Lbfast",
    "children_of",
    "cpu_seconds",
    "fd_census",
    "free_port",
    "free_ports",
    "is_running",
    "json_lines",
    "processes_of_session",
    "real_server",
    "render_toml",
    "scaled",
    "virtual_service",
    "wait_for",
]

ROOT = Path(__file__).resolve().parent.parent


def json_lines(log: Path) -> list[dict[str, Any]]:
    """The records of a log that may not be there yet and whose last line may be half written."""
    whole = log.read_bytes().rpartition(b"\n")[0] if log.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def real_server(label: str, port: int | None, address: str = "127.0.0.1", **settings: Any) -> dict[str, Any]:
    """A real server for ``virtual_service``."""
    return {"label": label, "address": address} | ({} if port is None else {"port": port}) | settings


def virtual_service(
    port: int, reals: Sequence[Mapping[str, Any]], label: str = "Symphony", address: str = "127.0.0.1", **settings: Any
) -> dict[str, Any]:
    """A virtual service for ``Lbfast``; not probed unless ``health_check`` is given."""
    service: dict[str, Any] = {"label": label, "address": address, "ports": str(port)}
    service["health_check"] = settings.pop("health_check", {"type": "none"})
    return service | settings | {"real_server": list(reals)}


def render_toml(config: Mapping[str, Any]) -> str:
    """A configuration as TOML: tables and lists of tables get their own sections."""
    return "\n".join(_render_table(config, ())) + "\n"


class Lbfast:
    """One ``lbfast run`` with directories of its own.

    As a context manager: started and READY inside; at the end it is stopped by
    SIGTERM and must exit with 0, have an empty stderr and leave no process.
    """

    def __init__(
        self,
        config: str | Mapping[str, Any],
        *,
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        ready_within: float = 30.0,
        allow_stderr: bool = False,
    ) -> None:
        """``directory``: keep everything there (for a second run); ``prefix``: e.g. ``ip netns exec NAME``."""
        self._owns_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="lbfast-"))
        if self._owns_directory:
            self.directory.chmod(0o711)  # run by root, control becomes another user and has to get here
        self.runtime_dir = self.directory / "run"
        self.state_dir = self.directory / "state"
        self.config_path = self.directory / "lbfast.toml"
        text = config if isinstance(config, str) else render_toml(config)
        self.config_path.write_text(text)
        self.env = os.environ | {
            "LBFAST_RUNTIME_DIR": str(self.runtime_dir),
            "LBFAST_STATE_DIR": str(self.state_dir),
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        }
        self.allow_stderr = allow_stderr
        self.lines: list[str] = []  # of stdout
        self._news = threading.Condition()
        self._prefix = list(prefix)
        self._ready_within = ready_within
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by clean_up
        self._process: subprocess.Popen[str] | None = None

    # --- life ---------------------------------------------------------------

    def __enter__(self) -> Lbfast:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.stop()
                assert self.allow_stderr or not self.stderr, f"stderr of lbfast:\n{self.stderr}"
            else:
                error.add_note(f"stderr of lbfast:\n{self.stderr}") if error else None
        finally:
            self.clean_up()

    def start(self) -> None:
        """Start without waiting."""
        command = [*self._prefix, sys.executable, "-m", "lbfast", "run", "--config", str(self.config_path)]
        self._process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_stdout, daemon=True)
        self._reader.start()

    def wait_ready(self) -> str:
        """Wait for the READY line and return it."""
        deadline = scaled(self._ready_within)
        with self._news:
            done = self._news.wait_for(lambda: self.ready_line or self._ended, deadline)
        if not self.ready_line:
            why = f"ended with {self.wait()}" if done else f"is not READY after {deadline:g} s"
            raise AssertionError(f"lbfast {why}; stderr:\n{self.stderr}\nstdout:\n" + "\n".join(self.lines[-20:]))
        return self.ready_line

    def stop(self, code: int = 0, timeout: float = 15.0) -> None:
        """SIGTERM unless it has ended; it must exit with ``code`` and leave no process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        found = self.wait(timeout)
        assert found == code, f"lbfast exited with {found}, not {code}; stderr:\n{self.stderr}"
        left = processes_of_session(self.process.pid)
        assert not left, f"lbfast left processes behind: {left}"

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for its end by itself; the exit code."""
        code = self.process.wait(scaled(timeout))
        self._reader.join(scaled(1))
        return code

    def clean_up(self) -> None:
        """Kill whatever is left and remove the directory; asserts nothing."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            for pid in processes_of_session(self._process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self._reader.join(scaled(2))
            if self._process.stdout and not self._reader.is_alive():
                self._process.stdout.close()
        self._stderr.close()
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- looking ------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "lbfast was not started"
        return self._process

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self.process.pid

    @property
    def ready_line(self) -> str:
        return next((line for line in self.lines if line.startswith("READY")), "")

    @property
    def stderr(self) -> str:
        return "" if self._stderr.closed else os.pread(self._stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    def children(self) -> dict[str, int]:
        """Its living children: ``lbfast-worker0``, ``lbfast-control``, ``lbfast-health`` -> pid."""
        return children_of(self.pid)

    def child(self, name: str) -> int:
        """The pid of ``worker0``, ``control`` or ``health``."""
        return self.children()[f"lbfast-{name}"]

    def wait_replaced(self, name: str, old: int, timeout: float = 10.0) -> int:
        """Wait until a child runs under another pid; the new one."""

        def replacement() -> int:
            pid = self.children().get(f"lbfast-{name}", 0)
            return pid if pid != old else 0

        return wait_for(replacement, timeout, f"a new {name} in place of {old}")

    # --- asking -------------------------------------------------------------

    def cli(self, *args: str, timeout: float = 20.0) -> tuple[int, str, str]:
        """Run a command of the CLI against it: (exit code, stdout, stderr)."""
        command = [*self._prefix, sys.executable, "-m", "lbfast", *args]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=scaled(timeout), check=False
        )
        return done.returncode, done.stdout, done.stderr

    def json(self, *args: str) -> Any:
        """Run a reading command with --json; what it says."""
        code, out, err = self.cli(*args, "--json")
        assert code == 0, f"lbfast {' '.join(args)}: exit code {code}: {err}"
        assert not err, err
        return json.loads(out)

    def call(self, verb: str, **args: Any) -> Any:
        """Ask the control socket directly, without the cost of a new Python."""
        from lbfast.control.client import Client

        return Client(self.runtime_dir / "control.sock", timeout=scaled(10)).call(verb, **args)

    @property
    def _ended(self) -> bool:
        return not self._reader.is_alive() or self.process.poll() is not None

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        self.process.wait()  # so that whoever waits sees the end
        with self._news:
            self._news.notify_all()


def _render_table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    rows = [f"{key} = {_render_value(value)}" for key, value in table.items() if not _is_tables(value)]
    for key, value in table.items():
        for element in value if _is_tables(value) else ():
            rows += ["", f"[[{'.'.join((*path, key))}]]", *_render_table(element, (*path, key))]
    return rows


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(element, Mapping) for element in value)


def _render_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_render_value(part)}" for key, part in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_render_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
