"""Runs the demo: three web servers, one lbfast, live events; leaves nothing behind."""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from lbfast.cli import out, talk
from lbfast.cli.clean import quote
from lbfast.cli.demo_children import Child, port_of, start_balancer, start_server, wait_ready
from lbfast.cli.demo_port import free_port
from lbfast.cli.demo_text import SERVERS, Served, render_config, render_welcome
from lbfast.cli.demo_web import wait_setup_link, web_port
from lbfast.cli.errors import OK, Refused
from lbfast.cli.event_lines import event_line

_PLACES = {"LBFAST_RUNTIME_DIR": "run", "LBFAST_STATE_DIR": "state"}

News = queue.SimpleQueue[str | Refused]


def run_demo(port: int, web: int) -> int:
    """The whole demo, until Ctrl-C, SIGTERM or the end of its lbfast.  ``web``: port wished for the web interface."""
    port = free_port(port)
    web = web_port(web)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbfast-demo-")))
        folder.chmod(0o711)  # run by root, lbfast's processes become another user and have to get to the state
        exports = _places(folder)
        try:
            _play(stack, folder, port, web, exports)
        except KeyboardInterrupt:
            out.line("\nstopping ...")
        finally:
            _ignore_interrupts()  # a second Ctrl-C must not keep the stack from stopping everybody
    out.line("stopped")
    return OK


def _places(folder: Path) -> dict[str, str]:
    """Directories of its own for runtime and state, unless the user chose some; what has to be exported for it."""
    exports = {}
    for name, part in _PLACES.items():
        if not os.environ.get(name):
            (folder / part).mkdir()
            exports[name] = os.environ[name] = str(folder / part)
    return exports


def _play(stack: ExitStack, folder: Path, port: int, web: int, exports: dict[str, str]) -> None:
    children: dict[str, Child] = {}
    servers = []
    for name in SERVERS:
        children[name] = start_server(stack, name, folder)
        servers.append(Served(name, port_of(name, children[name]), children[name].pid))
    config = folder / "demo.toml"
    config.write_text(render_config(port, web, servers), encoding="utf-8")
    balancer = start_balancer(stack, config)
    news: News = queue.SimpleQueue()
    # Threads from here on, when nothing is forked any more.
    wait_ready(balancer)
    out.line(render_welcome(port, wait_setup_link(web), servers, program(), exports))
    for name, child in children.items():
        _thread(_watch_server, name, child, news)
    _thread(_watch_balancer, balancer, news)
    _thread(_watch_events, news)
    while not isinstance(item := news.get(), Refused):
        out.line(item)
    raise item


def _watch_server(name: str, child: Child, news: News) -> None:
    code = child.wait()
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    news.put(f"         demo   the web server {quote(name)} (pid {child.pid}) is gone: {how}")


def _watch_balancer(child: Child, news: News) -> None:
    code = child.wait()
    news.put(Refused(f"lbfast ended by itself (exit code {code})"))


def _watch_events(news: News) -> None:
    """Follow the events; control may restart, then follow anew."""
    pause = threading.Event()
    kept: int | None = 100  # the first time also what happened before we asked
    while True:
        try:
            for event in talk.follow("events", limit=kept):
                kept = None
                news.put(event_line(event, with_service=False))
        except Refused:
            pass
        pause.wait(0.3)


def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def program() -> str:
    """How the reader can call this lbfast, in whatever directory the second terminal begins."""
    own = Path(sys.argv[0])
    found = shutil.which("lbfast")
    if found and (own.name != "lbfast" or Path(found).resolve() == own.resolve()):
        return "lbfast"
    if own.name == "lbfast":
        return shlex.quote(str(own.resolve()))
    return f"{shlex.quote(sys.executable)} -m lbfast"
