"""The demo's web interface: a free port for it, and its setup link."""

from __future__ import annotations

import threading

from lbfast.cli.demo_port import free_port
from lbfast.cli.errors import Refused
from lbfast.web.setup import CODE_FILE
from lbfast.web.store import folder

_WITHIN_S = 15.0
_LOOK_S = 0.05


def web_port(wanted: int) -> int:
    """The usual port if it is free, else any."""
    try:
        return free_port(wanted)
    except Refused:
        return free_port(0)


def wait_setup_link(port: int) -> str:
    """The link that sets the first password, ready to click; the login page when it is too late for that."""
    pause = threading.Event()
    path = folder() / CODE_FILE
    waited = 0.0
    while waited < _WITHIN_S:
        try:
            code = path.read_text(encoding="ascii").strip()
        except OSError:
            code = ""
        if code:
            return f"https://127.0.0.1:{port}/lbadmin/setup?code={code}"
        pause.wait(_LOOK_S)
        waited += _LOOK_S
    return f"https://127.0.0.1:{port}/lbadmin/"
