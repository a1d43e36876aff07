"""What web interface and APIs stand on beside the verbs of traffic: candidate, backups, series, logs, alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbfast.control import late as late
from lbfast.control.alerting import Alerting
from lbfast.control.backups import Backups
from lbfast.control.drafts import Drafts
from lbfast.control.kept_log import KeptLog
from lbfast.control.own_certificate import OwnCertificate
from lbfast.control.protocol import ControlError
from lbfast.control.sampler import Sampler
from lbfast.control.shelf import Shelf
from lbfast.control.support import Support

if TYPE_CHECKING:
    from lbfast.control.commits import Commits
    from lbfast.control.engine import Engine
    from lbfast.control.pair import PairLine
    from lbfast.control.probe_now import ProbeDesk
    from lbfast.model.appliance import Config


@dataclass
class Face:
    """One bundle, made and ended with the control process."""

    drafts: Drafts
    shelf: Shelf
    backups: Backups
    support: Support
    sampler: Sampler
    kept_log: KeptLog
    alerting: Alerting
    probes: ProbeDesk
    pair: PairLine | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Take up what an earlier control process left, and begin the regular work."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.backups.finish_and_repeat()),
            loop.create_task(self.sampler.run()),
            loop.create_task(self.alerting.run()),
        ]

    def replace(self, config: Config) -> None:
        """A commit stands."""
        self.alerting.replace(config.alerts, config.web)
        self.backups.replace(config.backup)
        self.sampler.replace(config.graphs.levels)
        if self.pair is not None and config.web is not None and config.ha.pairing:
            self.pair.start()  # unless it runs: it answers who wants to make this box its secondary

    def hear(self, record: Mapping[str, Any]) -> None:
        """An administrative, health or process record."""
        self.alerting.hear(record)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.alerting.flush()
        self.sampler.close()


def make_face(
    engine: Engine, commits: Commits, config: Config, state_dir: Path, kept_log: KeptLog, probes: ProbeDesk
) -> Face:
    shelf = Shelf(state_dir)
    face = Face(
        Drafts(engine, commits, state_dir),
        shelf,
        Backups(engine, commits, config.backup, shelf, state_dir),
        Support(engine, commits, shelf, kept_log),
        Sampler(engine, state_dir, config.graphs.levels),
        kept_log,
        Alerting(engine, config.alerts, OwnCertificate(config.web, state_dir)),
        probes,
        engine.pair,
    )
    engine.face = face
    engine.events.listeners.append(face.hear)
    engine.events.watchers.append(face.sampler.note_connect)
    return face


def face_of(engine: Engine) -> Face:
    if engine.face is None:
        raise ControlError("refused", "this control process keeps nothing: it has no supervisor")
    return engine.face
