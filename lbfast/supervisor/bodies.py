"""What each child is: its name, what it runs, when it is ready, and what its death leaves to repair."""

from __future__ import annotations

import os

from lbfast import _splice
from lbfast.supervisor.channel import Channel
from lbfast.supervisor.children import Body, Child
from lbfast.supervisor.ha_body import ha_body, is_wanted
from lbfast.supervisor.listeners import Listener, close_listeners
from lbfast.supervisor.start import Assets

_WORKER = "worker "
HA = "ha"


class Bodies:
    """The cast of one run: control, health, the workers, and in a pair ha."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._cores = sorted(os.sched_getaffinity(0)) if assets.config.pin_workers else []
        workers = tuple(f"{_WORKER}{index}" for index in range(assets.workers))
        self.names: tuple[str, ...] = (*workers, "control", "health")
        if is_wanted():
            self.names += (HA,)
        self.started_names = (*workers, "control")  # those that are ready within seconds, whatever is configured

    def want_ha(self) -> None:
        """There was no need for it at the start, and now there is."""
        if HA not in self.names:
            self.names += (HA,)

    def index(self, name: str) -> int:
        """Of a worker; -1 of the others."""
        return int(name.removeprefix(_WORKER)) if name.startswith(_WORKER) else -1

    def ready_event(self, name: str) -> str:
        """The message by which this child says that it is ready."""
        return "verdicts" if name == "health" else "ready"

    def body(self, name: str) -> Body:
        """What a new child of this name runs."""
        if name == "control":
            return self._control
        if name == "health":
            return self._health
        if name == HA:
            return self._ha
        index = self.index(name)
        return lambda channel: self._worker(index, channel)

    def repair(self, child: Child) -> int:
        """Give back what a dead child held in shared memory; how many connections it had."""
        shared = self._assets.shared
        shared.journal.mark_desync()  # its last change may not have been noted for the peer
        if child.index < 0:
            for stick in shared.sticks.values():
                stick.recover(child.pid)
            return 0
        return _splice.repair(
            child.index,
            child.pid,
            shared.table,
            shared.counters,
            shared.slabs[child.index],
            shared.rings[child.index],
            shared.sticks,
        )

    def _control(self, channel: Channel) -> int:
        # Imported here, in the child: what it needs is no burden to the supervisor and the workers.
        from lbfast.control.process import run_control

        assets = self._assets
        self._close_sockets(keep=-1)
        version = assets.version
        return run_control(assets.config_path, assets.config, assets.layout, assets.shared, channel, version) or 0

    def _health(self, channel: Channel) -> int:
        from lbfast.health.process import run_health

        assets = self._assets
        self._close_sockets(keep=-1)
        assets.shared.sticks.clear()  # not for health: it would only keep the tables of removed services alive
        config, layout = assets.config, assets.layout
        if assets.probed is not None:
            config, layout = assets.probed.config, assets.probed.layout
        return run_health(config, layout, assets.shared, channel)

    def _ha(self, channel: Channel) -> int:
        assets = self._assets
        self._close_sockets(keep=-1)
        return ha_body(assets.config, assets.layout, assets.version, assets.shared, channel)

    def _worker(self, index: int, channel: Channel) -> int:
        from lbfast.supervisor.worker import WorkerSetup, run_worker

        assets = self._assets
        self._close_sockets(keep=index)
        setup = WorkerSetup(
            index=index,
            shared=assets.shared,
            listeners=assets.listeners,
            inbox=assets.inboxes[index].receive,
            outboxes={other: inbox.send for other, inbox in enumerate(assets.inboxes) if other != index},
            pipes=assets.limits.pipes,
            core=self._cores[index % len(self._cores)] if self._cores else None,
        )
        return run_worker(setup, channel)

    def _close_sockets(self, keep: int) -> None:
        """In a child: close the listeners and inboxes of every worker but one; -1 closes all, senders too."""
        for listener in self._assets.listeners:
            _close_others(listener, keep)
        close_listeners(self._assets.spare)
        for index, inbox in enumerate(self._assets.inboxes):
            if index != keep:
                os.close(inbox.receive)
            if keep < 0 or index == keep:
                os.close(inbox.send)


def _close_others(listener: Listener, keep: int) -> None:
    for index, fd in enumerate(listener.fds):
        if index != keep:
            os.close(fd)
