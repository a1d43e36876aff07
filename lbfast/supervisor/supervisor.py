"""Runs lbfast: forks every other process, replaces whoever dies, stops everything in order."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lbfast.config.errors import ConfigError
from lbfast.config.paths import PlaceError, runtime_dir
from lbfast.config.store import load
from lbfast.supervisor.children import set_process_name
from lbfast.supervisor.estate import Estate, Heritage, adopt, adopt_heritage, adopt_inboxes
from lbfast.supervisor.life import Supervisor
from lbfast.supervisor.listeners import hang_up
from lbfast.supervisor.lock import AlreadyRunning
from lbfast.supervisor.migrate import differs, migrate
from lbfast.supervisor.orphans import end_orphans, find_orphans
from lbfast.supervisor.recall import close_all
from lbfast.supervisor.reexec import inherited
from lbfast.supervisor.regain import regain
from lbfast.supervisor.standstill import stand_still
from lbfast.supervisor.start import Assets, prepare, take_locks, top_up
from lbfast.supervisor.store import forget, give_up, take
from lbfast.supervisor.trial import TRIAL, run_trial

OK, FAILED, BAD_CONFIG = 0, 1, 2
_UMASK = 0o027  # whatever is written from here on is nobody else's to read
LEFT = -1


def run(config_path: str | os.PathLike[str]) -> int:
    """Run until stopped; 0 after a stop, 1 when it cannot run, 2 for a configuration that cannot be used."""
    trial = inherited(TRIAL)
    if trial is not None:
        return run_trial(trial)
    estate = inherited()
    if estate is not None:
        return _go_on(estate)
    return _begin(Path(os.path.abspath(config_path)))


def _begin(path: Path) -> int:
    try:
        loaded = load(path)  # whatever is left stays as it is when this file cannot be used
        with ExitStack() as undo:
            locks = take_locks(undo)
            kept = take(os.environ, os.getpid())
            names = list(kept)
            estate = regain(find_orphans(runtime_dir() / "children.json"), locks, kept)
            give_up(kept)
            undo.pop_all()
        if estate is not None and estate.facts["children"]:
            return _regained(estate, path)
        if estate is not None and (found := _found_again(estate, path, names)) is not None:
            return _supervise_heirs(*found)
        assets = prepare(path, loaded, locks)
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
        return abs(_supervise(assets))


def _regained(estate: Estate, path: Path) -> int:
    """Workers of a killed supervisor serve: they are ours now; control and health are started anew."""
    kept = {person[3] for person in estate.facts["children"]}
    end_orphans(it for it in find_orphans(runtime_dir() / "children.json") if it.pid not in kept)
    return _go_on(estate, path)


def _found_again(estate: Estate, path: Path, names: list[str]) -> tuple[Assets, Heritage] | None:
    """Nobody lives, but the service manager has kept what they had; None when this program cannot use it.

    ``names``: what it has, by its own names.
    """
    end_orphans(find_orphans(runtime_dir() / "children.json"))
    try:
        if differs(estate):
            raise ValueError("its memory is laid out otherwise")
        heritage = adopt_heritage(estate, time.monotonic())
        assets = adopt(estate)
        top_up(assets)
        assets.config_path = path
    except Exception as error:
        print(f"lbfast: what the service manager has kept is of no use, all starts anew: {error}", file=sys.stderr)
        left = {name: fd for name, fd in estate.fds.items() if not name.startswith("lock.")}
        for name, fd in left.items():
            if name.startswith("listener."):
                hang_up(fd)
        close_all(left.values())
        forget(names)
        return None
    return assets, heritage


def _go_on(estate: Estate, path: Path | None = None) -> int:
    """This program has taken over: whatever fails here, those that serve go on."""
    try:
        heritage = adopt_heritage(estate, time.monotonic())
        if differs(estate):
            stand_still(heritage.children)
            estate = migrate(estate)
            heritage = replace(heritage, old_inboxes=adopt_inboxes(estate))
        assets = adopt(estate)
        top_up(assets)
        if path is not None:
            assets.config_path = path
    except Exception:
        traceback.print_exc()
        print("lbfast: the new program cannot take over; workers go on without a supervisor", file=sys.stderr)
        return FAILED
    return _supervise_heirs(assets, heritage)


def _supervise_heirs(assets: Assets, heritage: Heritage) -> int:
    code = _supervise(assets, heritage)
    if code != LEFT:
        assets.owned.close()
    return FAILED if code == LEFT else code


def _supervise(assets: Assets, heritage: Heritage | None = None) -> int:
    """The exit code, or LEFT when a failure of the supervisor itself has left the others alone."""
    os.umask(_UMASK)
    for warning in assets.warnings:
        print(f"lbfast: {warning}", file=sys.stderr)
    set_process_name("lbfast")
    # What exists now lives as long as we do: keep the collector from touching, and so copying, it in every child.
    gc.collect()
    gc.freeze()
    supervisor = Supervisor(assets, heritage)
    try:
        code = supervisor.run()
    except Exception:
        if not supervisor.leave():
            supervisor.close()
            raise
        traceback.print_exc()
        print("lbfast: the supervisor has failed; workers, control and health go on", file=sys.stderr)
        assets.owned.pop_all()  # kept: others use it
        return LEFT
    except BaseException:
        supervisor.close()
        raise
    supervisor.close()
    return code
