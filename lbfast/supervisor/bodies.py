"""What each child is: its name, what it runs, when it is ready, and what its death leaves to repair."""

from __future__ import annotations

import os
from pathlib import Path

from lbfast import _repair
from lbfast.config.paths import state_dir
from lbfast.config.schema import json_schema
from lbfast.supervisor.channel import Channel
from lbfast.supervisor.children import Body, Child
from lbfast.supervisor.ha_body import ha_body, is_open, is_wanted, prove_ha
from lbfast.supervisor.listeners import close_listeners, sockets_of
from lbfast.supervisor.ownership import give_log, give_state
from lbfast.supervisor.preload import import_late
from lbfast.supervisor.recall import open_recall
from lbfast.supervisor.seccomp import confine_worker, this_machine
from lbfast.supervisor.start import Assets

_WORKER = "worker "
WEB = "web"
HA = "ha"


class Bodies:
    """The cast of one run: control, health, the workers, the web interface if it is configured, in a pair ha."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self.cores = sorted(os.sched_getaffinity(0))
        self.has_ha = is_wanted() or is_open(assets.config)

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who should run."""
        return (*self.started_names, "health", *([WEB] if self._assets.web else ()), *([HA] if self.has_ha else ()))

    @property
    def started_names(self) -> tuple[str, ...]:
        """Those that are ready within seconds, whatever is configured."""
        return (*(self.worker_name(place) for place in range(self._assets.workers)), "control")

    @property
    def trial_names(self) -> tuple[str, ...]:
        """What a new program proves itself with."""
        rest = (*([WEB] if self._assets.web else ()), *([HA] if self.has_ha else ()))
        return (self.worker_name(0), "control", "health", *rest)

    def trial_body(self, name: str, seat: int) -> Body:
        """What a trial runs: nobody who would be heard by a client or by the peer."""
        return self._prove_ha if name == HA else self.body(name, seat)

    @property
    def replaced_names(self) -> tuple[str, ...]:
        """What an upgrade replaces beside the workers and control."""
        return tuple(name for name in self.names if self.index(name) < 0 and name != "control")

    def worker_name(self, place: int) -> str:
        return f"{_WORKER}{place}"

    def core(self, place: int) -> int | None:
        """The core that the worker of a place stays on, if it has to."""
        return self.cores[place % len(self.cores)] if self._assets.config.pin_workers else None

    def want_ha(self) -> None:
        """There was no need for it at the start, and now there is."""
        self.has_ha = True

    def index(self, name: str) -> int:
        """The place of a worker; -1 of the others."""
        return int(name.removeprefix(_WORKER)) if name.startswith(_WORKER) else -1

    def ready_event(self, name: str) -> str:
        """The message by which this child says that it is ready."""
        return "verdicts" if name == "health" else "ready"

    def body(self, name: str, seat: int, *, beside: bool = False) -> Body:
        """What a new child of this name runs; a worker on this seat, control perhaps ``beside`` its predecessor."""
        if name == "control":
            return lambda channel: self._control(channel, beside)
        if name == "health":
            return self._health
        if name == WEB:
            return self._web
        if name == HA:
            return self._ha
        index = self.index(name)
        return lambda channel: self._worker(index, seat, channel)

    def repair(self, child: Child) -> int:
        """Give back what a dead child held in shared memory; how many connections it had."""
        shared = self._assets.shared
        shared.journal.mark_desync()  # its last change may not have been noted for the peer
        if child.seat < 0:
            for stick in shared.sticks.values():
                stick.recover(child.pid)
            return 0
        return _repair.repair(
            child.seat,
            child.pid,
            shared.table,
            shared.counters,
            shared.slabs,
            shared.rings[child.seat],
            shared.sticks,
        )

    def _control(self, channel: Channel, beside: bool) -> int:
        # Imported here, in the child: what it needs is no burden to the supervisor and the workers.
        from lbfast.control.process import run_control

        assets = self._assets
        self._close_sockets()
        version = assets.version
        arguments = (assets.config_path, assets.config, assets.layout, assets.shared, channel, version)
        return run_control(*arguments, assets.access, self._confine_control, beside=beside) or 0

    def _confine_control(self) -> None:
        privileges, log = self._assets.privileges, self._assets.config.log
        import_late()
        json_schema()  # for the errors of a commit: what makes it is imported when it is first asked for
        if privileges.user is not None and not privileges.keeps_control:
            give_state(state_dir(), privileges.user)
            if log.file is not None:
                give_log(Path(log.file), privileges.user)
        privileges.drop_control()

    def _health(self, channel: Channel) -> int:
        from lbfast.health.process import run_health

        assets = self._assets
        self._close_sockets()
        assets.shared.sticks.clear()  # not for health: it would only keep the tables of removed services alive
        config, layout = assets.config, assets.layout
        if assets.probed is not None:
            config, layout = assets.probed.config, assets.probed.layout
        import_late()
        assets.privileges.drop_health()
        return run_health(config, layout, assets.shared, channel)

    def _ha(self, channel: Channel) -> int:
        assets = self._assets
        self._close_sockets()
        user = assets.privileges.user
        import_late()
        assets.privileges.drop_ha()
        owner = None if user is None or assets.privileges.keeps_control else user.uid
        return ha_body(assets.config, assets.layout, assets.version, assets.shared, channel, owner)

    def _prove_ha(self, channel: Channel) -> int:
        assets = self._assets
        self._close_sockets()
        import_late()
        assets.privileges.drop_ha()
        return prove_ha(assets.config, assets.layout, assets.version, channel)

    def _web(self, channel: Channel) -> int:
        from lbfast.web.ownership import give_folder
        from lbfast.web.process import prepare, run_web
        from lbfast.web.store import folder

        assets = self._assets
        door = assets.web.pop()  # so that it is not closed with what is others'
        self._close_sockets()
        web = assets.config.web
        assert web is not None
        import_late()
        prepare()
        privileges = assets.privileges
        if privileges.user is not None and not privileges.keeps_control:
            give_folder(folder(), privileges.user.uid, privileges.user.gid)
        privileges.drop_control()  # it has files like control's, and needs no more than control
        # It talks to control and to nobody else: what the workers share is not for a process that browsers reach.
        assets.shared.forget()
        return run_web(web, door.fd, channel)

    def _worker(self, place: int, seat: int, channel: Channel) -> int:
        from lbfast.supervisor.worker import WorkerSetup, run_worker

        assets = self._assets
        self._close_sockets(place, seat)
        inboxes = assets.seats.inboxes
        recall = open_recall(seat)  # before rights are given up: the runtime directory is the supervisor's
        owner = os.geteuid()
        setup = WorkerSetup(
            place=place,
            workers=assets.workers,
            seat=seat,
            shared=assets.shared,
            listeners=() if assets.is_shut else assets.listeners,
            inbox=inboxes[seat].receive,
            outboxes={other: inbox.send for other, inbox in enumerate(inboxes)},
            pipes=assets.limits.pipes,
            core=self.core(place),
            recall=recall,
            owner=owner,
            confine=lambda: confine_worker(this_machine(), os.getpid()),
        )
        import_late()
        assets.privileges.drop_worker()
        return run_worker(setup, channel)

    def _close_sockets(self, place: int = -1, seat: int = -1) -> None:
        """In a child: close the listeners and inboxes of every worker but one; by default all, senders too."""
        assets = self._assets
        for listener in assets.listeners:
            kept = sockets_of(listener, place, assets.workers) if place >= 0 and not assets.is_shut else ()
            for fd in listener.fds:
                if fd not in kept:
                    os.close(fd)
        close_listeners(assets.spare)
        assets.close_web()
        for index, inbox in enumerate(assets.seats.inboxes):
            if index != seat:
                os.close(inbox.receive)
            if seat < 0:
                os.close(inbox.send)
