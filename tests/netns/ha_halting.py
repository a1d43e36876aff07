"""lbfast, whose ha process stands still at one moment of a pairing: the test kills the box there.

``ha_halting.py MOMENT FILE python -m lbfast ...``; the file arms it, and goes when it stands.  Moments: before
``hello``, ``challenge``, ``ask`` or ``agreed`` is sent, after the pair is ``kept`` or ``confirmed``.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lbfast.ha import desk
from lbfast.ha.link import Link
from lbfast.ha.pair_file import Pair


def moment_of(message: Mapping[str, Any]) -> str:
    """Which of the messages of a pairing it is."""
    kind = "challenge" if "challenge" in message else "agreed" if "proof" in message else "refused"
    return str(message.get("step", kind))


def main(moment: str, armed: Path) -> None:
    """Patched before the first fork, so that every child has it."""

    def halt(reached: str) -> None:
        if reached == moment and armed.exists():
            armed.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    put_as_ever, send_as_ever, save = Link.put_json, Link.send_json, desk.save_pair

    def put_json(link: Link, kind: str, document: Mapping[str, Any]) -> None:
        if kind == "P":
            halt(moment_of(document))
        put_as_ever(link, kind, document)

    async def send_json(link: Link, kind: str, document: Mapping[str, Any]) -> None:
        if kind == "P":
            halt(moment_of(document))
        await send_as_ever(link, kind, document)

    def save_pair(state_dir: Path, pair: Pair) -> None:
        save(state_dir, pair)
        halt("confirmed" if pair.is_confirmed else "kept")

    Link.put_json, Link.send_json, desk.save_pair = put_json, send_json, save_pair  # type: ignore[method-assign]


if __name__ == "__main__":
    _, given, file, _, _, _, *words = sys.argv
    main(given, Path(file))
    sys.argv = ["lbfast", *words]
    runpy.run_module("lbfast", run_name="__main__", alter_sys=True)
