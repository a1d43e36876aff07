"""Runs lbfast: forks every other process, replaces whoever dies, stops everything in order."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from lbfast.config.errors import ConfigError
from lbfast.config.paths import PlaceError
from lbfast.supervisor.children import set_process_name
from lbfast.supervisor.life import Supervisor
from lbfast.supervisor.lock import AlreadyRunning
from lbfast.supervisor.start import Assets, prepare

OK, FAILED, BAD_CONFIG = 0, 1, 2
_UMASK = 0o027  # whatever is written from here on is nobody else's to read


def run(config_path: str | os.PathLike[str]) -> int:
    """Run until stopped; 0 after a stop, 1 when it cannot run, 2 for a configuration that cannot be used."""
    path = Path(os.path.abspath(config_path))
    try:
        assets = prepare(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    except (PlaceError, AlreadyRunning) as error:
        print(f"lbfast: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"lbfast: cannot start: {error}", file=sys.stderr)
        return FAILED
    with assets.owned:
        return _supervise(assets)


def _supervise(assets: Assets) -> int:
    os.umask(_UMASK)
    for warning in assets.warnings:
        print(f"lbfast: {warning}", file=sys.stderr)
    set_process_name("lbfast")
    # What exists now lives as long as we do: keep the collector from touching, and so copying, it in every child.
    gc.collect()
    gc.freeze()
    supervisor = Supervisor(assets)
    try:
        return supervisor.run()
    finally:
        supervisor.close()
