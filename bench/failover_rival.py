"""The rivals in the same laboratory: keepalived for the addresses, HAProxy with peers for the affinity."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, field

from ha_lab import BOXES, CABLE, PORT, SERVERS, VIP, Lab
from harness import wait_for
from waiting import children_of

RIVAL_CASES = ("power", "stop", "hung", "link", "killed", "both_paths")

_KEEPALIVED = """
global_defs {{
  router_id {name}
  vrrp_version 3
  vrrp_garp_master_refresh 5
  script_user root
}}
vrrp_script alive {{
  script "{check}"
  interval 1
  timeout 1
  fall 2
  rise 1
}}
vrrp_instance one {{
  state BACKUP
  nopreempt
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int {advert}
  unicast_src_ip {own}
  unicast_peer {{ {other} }}
  virtual_ipaddress {{ {vip}/32 dev eth0 }}
  track_script {{ alive }}
}}
"""
# A connection alone would prove little: the kernel accepts for a process that stands still.
_ALIVE = """#!/bin/bash
exec 3<>/dev/tcp/{own}/10001 || exit 1
printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
read -r -t 1 answer <&3 && [[ $answer == *200* ]]
"""
_HAPROXY = """
global
  stats socket {directory}/{name}.sock mode 600
  nbthread 2
defaults
  mode tcp
  timeout connect 4s
  timeout client 60s
  timeout server 60s
peers pair
  peer a {a}:10000
  peer b {b}:10000
frontend alive
  mode http
  bind {own}:10001
  monitor-uri /
frontend f
  bind {vip}:{port} transparent
  default_backend s
backend s
  balance leastconn
  stick-table type ip size 100k expire 30m peers pair
  stick on src
{servers}
"""


@dataclass
class Rival(Lab):
    """A ``Lab`` whose boxes run keepalived and HAProxy."""

    advert_s: float = 1.0
    programs: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)

    def start(self, *names: str, config: str | None = None) -> None:  # noqa: ARG002
        for name in names:
            self._configure(name)
            haproxy = ["haproxy", "-L", name, "-f", str(self._file(name, "haproxy.cfg")), "-db"]
            pids = [f"{word}{self._file(name, pid)}" for word, pid in (("--pid=", "k.pid"), ("--vrrp_pid=", "v.pid"))]
            keepalived = ["keepalived", "-n", "-P", *pids, f"--use-file={self._file(name, 'keepalived.conf')}"]
            self.programs[name] = [self._launch(name, haproxy), self._launch(name, keepalived)]
        wait_for(lambda: self.holds("a") or self.holds("b"), 30, "an active box")

    def mend_all(self) -> None:
        """Both boxes whole and linked, exactly one active."""
        for box in BOXES:
            subprocess.run([*self.inside(box), "nft", "delete", "table", "inet", "t"], check=False, capture_output=True)
            self._each(box, signal.SIGCONT)
            for plug in ("lan", "hb"):
                self.mend(box, plug)
        for box in BOXES:
            if any(program.poll() is not None for program in self.programs[box]):
                self.kill_processes(box)
                self._reset(box)
                self.start(box)
        wait_for(lambda: self.holds("a") != self.holds("b"), 30, "exactly one active box")
        time.sleep(max(3.0, 4 * self.advert_s))  # its state cannot be asked: peers connect, the backup listens

    def kill_box(self, name: str) -> None:
        for cable in ("lan", "hb"):
            self.cut(name, cable)
        self.kill_processes(name)

    def kill_processes(self, name: str) -> None:
        self._each(name, signal.SIGKILL)
        for program in self.programs[name]:
            program.wait()

    def stop_box(self, name: str) -> None:
        """As `systemctl stop` does, in the order that is best for clients."""
        self.programs[name][1].terminate()

    def hang(self, name: str) -> None:
        self.programs[name][0].send_signal(signal.SIGSTOP)

    def wait_stopped(self, name: str) -> None:
        self.programs[name][1].wait(20)

    def deafen(self, name: str) -> None:
        rules = "add table inet t\nadd chain inet t c { type filter hook input priority 0; policy accept; }\n"
        self.nft(name, rules + "add rule inet t c ip protocol 112 drop\n")

    def close(self) -> None:
        for name in self.programs:
            self._each(name, signal.SIGCONT)
            self.kill_processes(name)
        super().close()

    def _file(self, name: str, what: str) -> str:
        return str(self.directory / f"{name}-{what}")

    def _each(self, name: str, number: int) -> None:
        for program in self.programs[name]:
            if program.poll() is None:
                for pid in (*children_of(program.pid).values(), program.pid):
                    self.signal(pid, number)

    def _launch(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        with open(self._file(name, "log"), "ab") as log:
            return subprocess.Popen([*self.inside(name), *words], stdout=log, stderr=log)

    def _reset(self, name: str) -> None:
        self.ip(name, "address", "flush", "dev", "eth0")
        self.ip(name, "address", "add", f"{BOXES[name]}/16", "dev", "eth0")

    def _configure(self, name: str) -> None:
        other = "b" if name == "a" else "a"
        check = self.directory / f"{name}-alive"
        check.write_text(_ALIVE.format(own=CABLE[name]))
        check.chmod(0o700)
        with open(self._file(name, "keepalived.conf"), "w") as stream:
            priority = 101 if name == "a" else 100
            stream.write(
                _KEEPALIVED.format(
                    name=name,
                    check=check,
                    priority=priority,
                    advert=self.advert_s,
                    own=BOXES[name],
                    other=BOXES[other],
                    vip=VIP,
                )
            )
        servers = "\n".join(f"  server s{place} {host}:{PORT} check" for place, host in enumerate(SERVERS, 1))
        with open(self._file(name, "haproxy.cfg"), "w") as stream:
            stream.write(
                _HAPROXY.format(
                    directory=self.directory,
                    name=name,
                    own=CABLE[name],
                    a=CABLE["a"],
                    b=CABLE["b"],
                    vip=VIP,
                    port=PORT,
                    servers=servers,
                )
            )
