"""A day's work on lbfast and on HAProxy: edits, upgrades, deaths.  Each step returns when it is done."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import Lbfast, real_server, render_toml, virtual_service, wait_for
from waiting import children_of

from bench.procs import Program, process_tree
from lbfast.control.client import Client, ControlError, ControlUnavailable

SYSTEMD_RESTART = 0.1  # RestartSec of a unit that says nothing else
PEERS_WITHIN = 12.0  # HAProxy waits twice 5 s for somebody to teach it; only then it teaches its successor


class LbfastDay:
    """What an edit is: a weight, a limit, a virtual service that comes and goes, by turns."""

    label = "lbfast"

    def __init__(self, folder: Path, port: int, other: int, ports: Mapping[str, int]) -> None:
        self.port, self._other, self._ports = port, other, ports
        self._workers, self._edits = 2, 0
        logs = folder / "logs"
        logs.mkdir()
        logs.chmod(0o777)  # run by root, control is another user
        self.log = logs / "log"
        self.lb = Lbfast(self._text(), directory=folder, allow_stderr=True)

    def _text(self) -> str:
        turn = self._edits % 4
        weights = {"R1": 100 + 50 * (turn == 1)}
        reals = [real_server(name, port, weight=weights.get(name, 100)) for name, port in self._ports.items()]
        checks = {"health_check": {"type": "connect", "interval": "1s"}}
        services = [virtual_service(self.port, reals, max_connections=5000 + turn, **checks)]
        if turn == 2:
            services.append(virtual_service(self._other, reals, "Another"))
        log = {"target": "file", "file": str(self.log), "rate_limit": 0}
        return render_toml({"workers": self._workers, "log": log, "virtual_service": services})

    def start(self) -> None:
        self.lb.start()
        self.lb.wait_ready()

    def stop(self) -> None:
        self.lb.stop()
        self.lb.clean_up()

    def call(self, verb: str, **args: Any) -> Any:
        return Client(self.lb.runtime_dir / "control.sock", timeout=60).call(verb, **args)

    def edit(self) -> None:
        self._edits += 1
        self.call("commit", text=self._text(), file="day.toml")

    def upgrade(self) -> None:
        self.call("upgrade")
        self._wait_answer()

    def resize(self) -> None:
        self._workers = 3 if self._workers == 2 else 2
        self.call("commit", text=self._text(), file="day.toml")

    def kill_other(self, name: str) -> None:
        """Control or health."""
        old = self.lb.child(name)
        os.kill(old, signal.SIGKILL)
        self.lb.wait_replaced(name, old, 30)
        self._wait_answer()

    def kill_worker(self) -> tuple[float, float, set[int]]:
        """Seconds to its successor's fork and to its loop; the clients' ports of those that it had."""
        begun = self.log.stat().st_size
        old, killed = self.lb.child("worker0"), time.monotonic()
        os.kill(old, signal.SIGKILL)
        new = self.lb.wait_replaced("worker0", old)
        forked = time.monotonic() - killed
        wait_for(lambda: self._turns(new), 10, "the new worker's loop")
        looped = time.monotonic() - killed
        wait_for(lambda: not self._has_waiting_records(), 10, "the records of the dead worker")
        return forked, looped, self._died_since(begun)

    def _turns(self, pid: int) -> bool:
        return any(it["pid"] == pid and it["loops"] for it in self.call("statistics")["workers"])

    def _has_waiting_records(self) -> bool:
        """Once the log has grown and rests at a whole line, what the ring held at the death is in it."""
        size = self.log.stat().st_size
        time.sleep(0.5)  # control writes each 100 ms
        return self.log.stat().st_size <= size

    def _died_since(self, start: int) -> set[int]:
        with self.log.open("rb") as log:
            log.seek(start)
            lines = [line for line in log if b"worker_died" in line]
        return {json.loads(line)["client_port"] for line in lines}

    def _wait_answer(self) -> None:
        wait_for(self._answers, 60, "control to answer")

    def _answers(self) -> bool:
        try:
            return bool(self.call("version"))
        except (ControlUnavailable, ControlError):
            return False

    def processes(self) -> list[int]:
        return process_tree(self.lb.pid)

    def old_processes(self) -> int:
        """Workers beyond those that are wanted."""
        return sum("worker" in name for name in children_of(self.lb.pid)) - self._workers


class HaproxyDay:
    """As Debian's unit runs it: master and worker, sockets and stick table passed to the next process at a reload."""

    label = "HAProxy"

    def __init__(self, folder: Path, port: int, other: int, ports: Mapping[str, int], peer: int) -> None:
        self.port, self._other, self._ports, self._peer = port, other, ports, peer
        self._folder, self._threads, self._edits = folder, 2, 0
        self._path = folder / "haproxy.cfg"
        self._program: Program | None = None

    def _text(self) -> str:
        turn = self._edits % 4
        reals = "".join(
            f"  server {name} 127.0.0.1:{port} weight {150 if turn == 1 and name == 'R1' else 100} check inter 1s\n"
            for name, port in self._ports.items()
        )
        another = f"listen another\n  bind 127.0.0.1:{self._other}\n{reals}" if turn == 2 else ""
        return f"""global
  nbthread {self._threads}
  maxconn 8000
  localpeer me
  stats socket {self._folder}/admin mode 600 level admin expose-fd listeners
peers mine
  peer me 127.0.0.1:{self._peer}
defaults
  mode tcp
  timeout connect 4s
  timeout client 12h
  timeout server 12h
listen symphony
  bind 127.0.0.1:{self.port}
  maxconn {5000 + turn}
  balance leastconn
  stick-table type ip size 100k expire 30m peers mine
  stick on src
{reals}{another}"""

    @property
    def program(self) -> Program:
        assert self._program is not None
        return self._program

    def start(self) -> None:
        self._run()
        time.sleep(PEERS_WITHIN)

    def _run(self) -> None:
        self._path.write_text(self._text())
        run = self._folder / "run"
        run.mkdir(exist_ok=True)
        self._program = Program(self.label, ["haproxy", "-W", "-f", str(self._path)], run)
        self._program.wait_accepting([self.port])

    def stop(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.program.process.wait()

    def edit(self) -> None:
        self._edits += 1
        self._reload()

    def upgrade(self) -> None:
        self._reload()

    def resize(self) -> None:
        self._threads = 3 if self._threads == 2 else 2
        self._reload()

    def _reload(self) -> None:
        before = set(self._workers())
        self._path.write_text(self._text())
        self.program.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: set(self._workers()) - before, 20, "the new process")
        time.sleep(0.3)  # it takes the sockets and the table over; there is nothing to ask whether it has

    def kill_worker(self) -> tuple[float, float, set[int]]:
        """Its master ends with it and with every older process; the service manager starts all anew."""
        victim, killed = max(self._workers()), time.monotonic()
        os.kill(victim, signal.SIGKILL)
        self.program.process.wait(20)
        time.sleep(SYSTEMD_RESTART)
        self._run()
        took = time.monotonic() - killed
        return took, took, set()

    def _workers(self) -> list[int]:
        return [pid for pid in self.processes() if pid != self.program.process.pid]

    def processes(self) -> list[int]:
        return process_tree(self.program.process.pid)

    def old_processes(self) -> int:
        return len(self._workers()) - 1
