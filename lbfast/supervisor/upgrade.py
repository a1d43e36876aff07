"""Upgrade, as the old program sees it: the new one is tried in a child, then executed in place.

Until the moment of the exec nothing has changed, and a new program that does not prove
itself is told of and forgotten.  After it, ``inherit.py`` of the new program goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lbfast.config.paths import RUNTIME_VARIABLE, STATE_VARIABLE, state_dir
from lbfast.supervisor.estate import Estate
from lbfast.supervisor.reexec import command
from lbfast.supervisor.trial import TRIAL, TRIAL_STATE

TRIAL_WITHIN = 30.0
QUIET_WITHIN = 30.0  # commits and replacements under way end first
_LOOK = 0.02
_MOST_TEXT = 400
Done = Callable[[str], None]


class Crew(Protocol):
    """The supervisor, as far as an upgrade needs it."""

    def estate(self) -> Estate:
        """What would be passed on now; ``running`` in it is to be closed."""

    def execute(self, number: int) -> str:
        """Become the new program, which answers the request of that number; or why that failed."""

    def is_quiet(self) -> bool: ...
    def watch(self, fd: int, action: Callable[[], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def later(self, seconds: float, action: Callable[[], None]) -> None: ...


@dataclass
class _Trial:
    process: subprocess.Popen[bytes]
    pidfd: int
    directory: Path
    number: int  # of control's request, 0 when nobody waits
    is_late: bool = False


class Upgrade:
    """One at a time.  ``failed(number, why)`` is called when the old program goes on."""

    def __init__(self, crew: Crew, failed: Callable[[int, str], None]) -> None:
        self._crew = crew
        self._failed = failed
        self._trial: _Trial | None = None
        self._waits = False

    @property
    def is_busy(self) -> bool:
        return self._trial is not None or self._waits

    def begin(self, number: int, within: float = TRIAL_WITHIN) -> None:
        if self.is_busy:
            self._failed(number, "another upgrade is under way")
            return
        try:
            trial = self._trial = self._start(number)
        except OSError as error:
            self._failed(number, f"the new program cannot be tried: {error.strerror}")
            return
        self._crew.watch(trial.pidfd, self._on_end)
        self._crew.later(within, lambda: self._on_late(trial))

    def close(self) -> None:
        """The supervisor stops."""
        if self._trial is not None:
            self._end(self._trial)

    def forget(self) -> None:
        """In a new child."""
        if self._trial is not None:
            os.close(self._trial.pidfd)

    def _start(self, number: int) -> _Trial:
        directory = Path(tempfile.mkdtemp(prefix="lbfast-"))
        estate = self._crew.estate()
        memfd = estate.pack()
        places = {RUNTIME_VARIABLE: str(directory / "run"), STATE_VARIABLE: str(directory / "state")}
        env = os.environ | places | {TRIAL: str(memfd), TRIAL_STATE: str(state_dir())}
        try:
            with open(directory / "out", "wb") as out, open(directory / "err", "wb") as err:
                process = subprocess.Popen(
                    command(),
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=[memfd, *estate.fds.values()],
                    start_new_session=True,
                )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            os.close(memfd)
            os.close(estate.fds["running"])
        return _Trial(process, os.pidfd_open(process.pid), directory, number)

    def _on_late(self, trial: _Trial) -> None:
        if self._trial is trial:
            trial.is_late = True
            _kill(trial.process.pid)

    def _on_end(self) -> None:
        trial = self._trial
        assert trial is not None
        self._crew.unwatch(trial.pidfd)
        verdict = self._end(trial)
        if verdict:
            self._failed(trial.number, verdict)
        else:
            self._waits = True
            self._go(trial.number, int(QUIET_WITHIN / _LOOK))

    def _end(self, trial: _Trial) -> str:
        """Why the new program is not taken; empty when it has proven itself."""
        self._trial = None
        _kill(trial.process.pid)
        code = trial.process.wait()
        os.close(trial.pidfd)
        try:
            return _verdict(trial, code)
        finally:
            shutil.rmtree(trial.directory, ignore_errors=True)

    def _go(self, number: int, looks: int) -> None:
        if self._crew.is_quiet():
            why = self._crew.execute(number)
        elif looks > 0:
            self._crew.later(_LOOK, lambda: self._go(number, looks - 1))
            return
        else:
            why = "commits or replacements of processes do not end"
        self._waits = False
        self._failed(number, why)


def _verdict(trial: _Trial, code: int) -> str:
    if trial.is_late:
        return "the new program did not come up in time"
    said = _last_line(trial.directory / "out")
    try:
        answer: dict[str, Any] = json.loads(said)
        if code == 0 and answer["ok"]:
            return ""
        return f"the new program does not work here: {str(answer['reason'])[:_MOST_TEXT]}"
    except (ValueError, KeyError, TypeError):
        why = _last_line(trial.directory / "err") or said or "it said nothing"
        return f"the new program does not start (exit status {code}): {why[:_MOST_TEXT]}"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _kill(group: int) -> None:
    """The new program and everything it has started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
