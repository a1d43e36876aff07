"""The real systemd, as a manager of its own in a mount namespace: everybody is killed, and clients only wait."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import ROOT, Lbfast, free_port, is_running, real_server, virtual_service, wait_for
from live_world import NAMES, named_servers, text_of
from servers import connect, read_line
from waiting import children_of

MANAGER = Path("/lib/systemd/systemd")
UNIT = """
[Service]
Type=notify
NotifyAccess=main
WatchdogSec=30
ExecStart={python} -m lbfast run --config {config}
Environment={env}
KillMode=process
Restart=always
RestartSec=100ms
FileDescriptorStoreMax=4096
StandardOutput=null
StandardError=file:{folder}/stderr
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not MANAGER.exists() or not shutil.which("systemctl"), reason="no systemd here"),
]


class Systemd:
    def __init__(self, folder: Path) -> None:
        self._env = os.environ | {"XDG_RUNTIME_DIR": str(folder / "run"), "XDG_CONFIG_HOME": str(folder / "config")}

    def ctl(self, *args: str) -> str:
        command = ["systemctl", "--user", *args]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60, check=False).stdout

    @contextmanager
    def running(self) -> Iterator[None]:
        # It wants to be told that the machine was started by systemd; nobody else should think so.
        script = "mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && exec $0 --user --unit=idle.target"
        Path("/run/systemd").mkdir(exist_ok=True)
        manager = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, str(MANAGER)], env=self._env, start_new_session=True
        )
        try:
            wait_for(lambda: self.ctl("show", "-P", "Version"), 20, "systemd")
            yield
        finally:
            self.ctl("stop", "lbfast.service")
            manager.terminate()
            manager.wait(20)


@contextmanager
def managed(text: str) -> Iterator[tuple[Systemd, Lbfast]]:
    """lbfast under a systemd; the ``Lbfast`` only knows where it is."""
    with tempfile.TemporaryDirectory(prefix="lbfast-") as place:
        folder = Path(place)
        folder.chmod(0o711)
        for name in ("run", "config/systemd/user", "x"):
            (folder / name).mkdir(parents=True, mode=0o700 if name == "run" else 0o711)
        lb = Lbfast(text, directory=folder / "x", allow_stderr=True)
        names = ("LBFAST_RUNTIME_DIR", "LBFAST_STATE_DIR")
        env = " ".join([*(f'"{name}={lb.env[name]}"' for name in names), f'"PYTHONPATH={ROOT}"'])
        unit = UNIT.format(python=sys.executable, config=lb.config_path, env=env, folder=folder)
        (folder / "config/systemd/user/lbfast.service").write_text(unit)
        (folder / "config/systemd/user/idle.target").write_text("[Unit]\nDescription=nothing\n")
        systemd = Systemd(folder)
        try:
            with systemd.running():
                yield systemd, lb
        finally:
            lb.clean_up()


def test_everybody_is_killed_under_systemd() -> None:
    port = free_port()
    with named_servers() as servers:
        service = virtual_service(port, [real_server(name, servers[name].port) for name in NAMES])
        with managed(text_of([service])) as (systemd, lb):
            try:
                systemd.ctl("start", "lbfast.service")
                main = int(systemd.ctl("show", "-P", "MainPID", "lbfast.service"))
                homes = {}
                for host in range(1, 21):
                    with connect(port, source=f"127.8.3.{host}") as sock:
                        homes[host] = read_line(sock)
                lb.call("persistence_pin", service="Symphony", client="10.9.8.7", real="R3")
                wait_for(lambda: int(systemd.ctl("show", "-P", "NFileDescriptorStore", "lbfast.service")) > 10)
                everybody = [main, *children_of(main).values()]
                for pid in everybody:
                    os.kill(pid, signal.SIGKILL)
                waiting = [connect(port, source=f"127.8.3.{host}") for host in range(1, 21)]
                for host, sock in enumerate(waiting, 1):
                    assert read_line(sock) == homes[host], "another server"
                    sock.close()
                wait_for(lambda: lb.call("version"), 20, "verbs")
                assert lb.call("persistence_show", service="Symphony", client="10.9.8.7")["entries"][0]["pinned"]
                now = int(systemd.ctl("show", "-P", "MainPID", "lbfast.service"))
                assert now not in everybody
                systemd.ctl("stop", "lbfast.service")
                assert systemd.ctl("is-active", "lbfast.service").strip() == "inactive"
                wait_for(lambda: not is_running(now), what="the end of the service")
                with pytest.raises(ConnectionRefusedError):
                    connect(port)
            except BaseException as error:
                error.add_note((lb.directory.parent / "stderr").read_text()[-3000:])
                raise
