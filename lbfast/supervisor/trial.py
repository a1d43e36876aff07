"""Trial: a new program proves itself before it takes over, on copies, without a client and without a lock.

Run in a process of its own by the program that still serves.  It reads what runs,
attaches copies of all shared memory, and brings up a worker, control and health on
them; control must answer a question.  One JSON line on stdout tells how it went.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from lbfast import __version__
from lbfast.config.paths import ensure_dir, runtime_dir, state_dir
from lbfast.control.client import Client
from lbfast.model.appliance import LogSettings
from lbfast.supervisor.bodies import Bodies
from lbfast.supervisor.channel import ChannelError
from lbfast.supervisor.children import Child, start_child
from lbfast.supervisor.estate import Estate, adopt
from lbfast.supervisor.migrate import copy_memory, differs, migrate
from lbfast.supervisor.seats import Inbox
from lbfast.supervisor.shared import WAKES
from lbfast.supervisor.start import Assets
from lbfast.supervisor.web_door import WebDoor

TRIAL = "LBFAST_TRIAL"
TRIAL_STATE = "LBFAST_TRIAL_STATE"
"""Environment: the descriptor of the estate, and the state directory to copy."""

_ANSWER_WITHIN = 10.0
_ALIVE_FOR = 1.0  # health, whose first verdicts may take as long as the checks say


def run_trial(estate: Estate) -> int:
    """The exit code; it is killed when it takes too long."""
    children: list[Child] = []
    try:
        _try(estate, children)
    except Exception as error:
        return _tell(False, f"{type(error).__name__}: {error}", 1)
    finally:
        for child in children:
            child.kill(signal.SIGKILL)
            child.reap()
    return _tell(True, "", 0)


def _tell(ok: bool, reason: str, code: int) -> int:
    print(json.dumps({"ok": ok, "reason": reason, "version": __version__}), flush=True)
    return code


def _try(estate: Estate, children: list[Child]) -> None:
    ensure_dir(runtime_dir(), 0o700, "")
    # Links stay links: control's user may lay some, and we are root.  Whatever sqlite shares in memory it makes anew.
    left_out = shutil.ignore_patterns("*.lock", "*-shm")
    shutil.copytree(os.environ[TRIAL_STATE], state_dir(), symlinks=True, dirs_exist_ok=True, ignore=left_out)
    Path(state_dir(), "confirm.json").unlink(missing_ok=True)  # its deadline is not ours to keep
    Path(state_dir(), "addresses.json").unlink(missing_ok=True)
    assets = _apart(estate)
    bodies = Bodies(assets)
    seat = assets.seats.take(0)
    for name in bodies.trial_names:
        body = bodies.trial_body(name, seat if bodies.index(name) >= 0 else -1)
        forget = partial(_forget, list(children))
        children.append(start_child(name, bodies.index(name), body, forget, time.monotonic()))
    for child in children:
        _wait_ready(child, bodies)
    answer = Client(timeout=_ANSWER_WITHIN).call("version")
    if answer["version"] != __version__:
        raise ValueError(f"control answers as version {answer['version']}")


def _apart(estate: Estate) -> Assets:
    """The assets on copies of the memory; no listener, no lock, no log."""
    facts = estate.facts | {"listeners": [], "locks": [], "web": []}
    memory = ("table", "counters", "results", "stick.", "slab.", "ring.")
    fds = {name: copy_memory(fd) for name, fd in estate.fds.items() if name.startswith(memory)}
    fds |= {"running": os.dup(estate.fds["running"])}
    fds |= {name: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for name in WAKES}
    for seat in range(facts["slabs"]):
        inbox = Inbox.open()
        fds |= {f"inbox.{seat}.receive": inbox.receive, f"inbox.{seat}.send": inbox.send}
    copied = Estate(facts, fds)
    assets = adopt(migrate(copied) if differs(copied) else copied)
    silent = assets.config.model_copy(update={"log": LogSettings(target="none")})
    if silent.web is not None:
        assets.web.append(_door_of_nobody())
    return replace(assets, config=silent)


def _door_of_nobody() -> WebDoor:
    """Where the web process of a trial listens: nobody knows it, and it is gone with the trial."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return WebDoor("127.0.0.1", sock.getsockname()[1], sock.detach())


def _forget(siblings: list[Child]) -> None:
    for child in siblings:
        child.channel.close()
        os.close(child.pidfd)


def _wait_ready(child: Child, bodies: Bodies) -> None:
    """The parent ends us when this takes too long."""
    started = time.monotonic()
    poller = select.poll()
    poller.register(child.pidfd, select.POLLIN)
    poller.register(child.channel, select.POLLIN)
    while True:
        left = _ALIVE_FOR - (time.monotonic() - started) if child.name == "health" else None
        if left is not None and left <= 0:
            return
        ready = {fd for fd, _ in poller.poll(None if left is None else left * 1000)}
        if child.channel.fileno() in ready:
            try:
                message = child.channel.receive_now()
            except (BlockingIOError, ChannelError):
                message = {}
            if message is None:
                poller.unregister(child.channel)
            elif message.get("event") == bodies.ready_event(child.name):
                return
        elif child.pidfd in ready:
            raise ChildProcessError(f"{child.name} ended before it was ready")
