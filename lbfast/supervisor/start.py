"""Everything that must be had before the first fork: configuration, locks, addresses, listeners, memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from lbfast.config.errors import ConfigError
from lbfast.config.id_file import keep_ids
from lbfast.config.layout import Layout, plan_layout
from lbfast.config.paths import (
    RUNTIME_VARIABLE,
    STATE_VARIABLE,
    control_socket,
    ensure_dir,
    runtime_dir,
    state_dir,
)
from lbfast.config.publish import Placed, publish
from lbfast.config.store import Loaded, load
from lbfast.config.versions import Version, VersionStore, adopt_text
from lbfast.control.admin import restore_admin
from lbfast.control.catalog import catalog_of
from lbfast.control.engine import local_clock
from lbfast.control.peer import user_name
from lbfast.model.appliance import Config
from lbfast.supervisor.address_plan import WantedAddress
from lbfast.supervisor.addresses import AddressFaults
from lbfast.supervisor.ha_addresses import AddressOwner
from lbfast.supervisor.ha_body import is_paired
from lbfast.supervisor.limits import WorkerLimits, pipes_for_each, plan_limits, raise_descriptor_limit
from lbfast.supervisor.listeners import Listener, ListenFaults, close_listeners, open_listeners
from lbfast.supervisor.lock import Lock
from lbfast.supervisor.orphans import end_orphans, find_orphans
from lbfast.supervisor.shared import Shared, create_shared


@dataclass(frozen=True)
class Inbox:
    """Where a worker is handed accepted sockets; kept open by the supervisor across the worker's deaths."""

    receive: int
    send: int


@dataclass
class Assets:
    """What the supervisor owns, ready to be inherited."""

    config_path: Path
    config: Config
    layout: Layout
    workers: int
    limits: WorkerLimits
    shared: Shared
    listeners: list[Listener]
    inboxes: list[Inbox]
    addresses: AddressOwner
    children_record: Path
    locks: list[Lock]
    version: int = 0  # of the configuration, as the version store counts
    probed: Placed | None = None  # what health works on, when that is not what runs
    spare: list[Listener] = field(default_factory=list)  # open, but not (or no longer) any worker's
    notes: list[str] = field(default_factory=list)  # for the events
    warnings: list[str] = field(default_factory=list)  # for stderr
    owned: ExitStack = field(default_factory=ExitStack)

    def forget_locks(self) -> None:
        """In a child: the locks are the supervisor's, and must end with it."""
        for lock in self.locks:
            lock.forget()


def prepare(config_path: Path) -> Assets:
    """Get everything, or raise and leave the machine as it was.

    ConfigError for what the file says or this machine refuses; PlaceError and
    AlreadyRunning for the directories; OSError for memory and descriptors.
    """
    loaded = load(config_path)
    with ExitStack() as undo:
        locks = _take_locks(undo)
        children_record = runtime_dir() / "children.json"
        undo.callback(lambda: children_record.unlink(missing_ok=True))
        notes = _end_orphans(children_record)
        layout = plan_layout(loaded.config)
        workers = loaded.config.workers or len(os.sched_getaffinity(0))
        limits = _limits(loaded.config, layout, workers)
        addresses = AddressOwner(state_dir() / "addresses.json", is_paired=is_paired())
        undo.callback(addresses.drop_all)
        listeners = _reach(loaded, loaded.config, layout, workers, addresses)
        undo.callback(close_listeners, listeners)
        # Only now: a start that this machine refuses changes nothing, not even the kept identities.
        config, warnings = keep_ids(loaded.config, state_dir())
        shared = create_shared(config, layout, workers, limits.connections)
        _publish(loaded, shared, config, layout)
        # Before the first worker: a server that was halted must not get a client until control is up.
        trouble = restore_admin(state_dir(), catalog_of(config, layout), shared, local_clock())
        notes += [trouble] if trouble else []
        inboxes = _make_inboxes(workers, undo)
        warnings = [f"warning: {doubt}" for doubt in loaded.warnings] + warnings
        notes += _notes(config, limits, workers, addresses)
        return Assets(
            config_path,
            config,
            layout,
            workers,
            limits,
            shared,
            listeners,
            inboxes,
            addresses,
            children_record,
            locks,
            _keep_version(loaded, warnings),
            None,
            [],
            notes,
            warnings,
            undo.pop_all(),
        )


def _take_locks(undo: ExitStack) -> list[Lock]:
    """Runtime and state directory are each one supervisor's: it cleans up in both."""
    control_socket()  # a path that is too long should be told before anything is made
    ensure_dir(runtime_dir(), 0o755, RUNTIME_VARIABLE)
    ensure_dir(state_dir(), 0o750, STATE_VARIABLE)
    locks: list[Lock] = []
    for place, variable in ((runtime_dir(), RUNTIME_VARIABLE), (state_dir(), STATE_VARIABLE)):
        if any(lock.path.parent.samefile(place) for lock in locks):
            continue
        lock = Lock(place / "lbfast.lock", variable)
        lock.acquire()
        undo.callback(lock.release)
        locks.append(lock)
    return locks


def _end_orphans(record: Path) -> list[str]:
    orphans = find_orphans(record)
    if not orphans:
        return []
    end_orphans(orphans)
    names = ", ".join(f"{orphan.name} (pid {orphan.pid})" for orphan in orphans)
    return [f"ended the processes of a supervisor that had been killed: {names}"]


def _limits(config: Config, layout: Layout, workers: int) -> WorkerLimits:
    wanted = sum(service.max_connections for service in config.virtual_services)
    descriptors = raise_descriptor_limit()
    # The supervisor holds the listeners of all workers, and so does each child for a moment after its fork.
    needed = len(layout.listeners) * workers + 256
    if needed > descriptors:
        raise OSError(
            f"{len(layout.listeners)} listeners in each of {workers} workers need {needed} open files, "
            f"but the limit (RLIMIT_NOFILE) is {descriptors}: raise it, or configure fewer ports or workers"
        )
    return plan_limits(descriptors, len(layout.listeners), workers, wanted, pipes_for_each(workers))


def _reach(loaded: Loaded, config: Config, layout: Layout, workers: int, addresses: AddressOwner) -> list[Listener]:
    """Raise the addresses, then open every listener on them."""
    wanted = [
        WantedAddress(position, ip_address(service.address), service.interface)
        for position, service in enumerate(config.virtual_services)
    ]
    services = {service.label: (position, service) for position, service in enumerate(config.virtual_services)}
    try:
        addresses.raise_all(wanted)
        return open_listeners(layout.listeners, services, workers, free_bind=addresses.is_paired)
    except (AddressFaults, ListenFaults) as error:
        faults = sorted(error.faults, key=lambda fault: fault.service)
        raise ConfigError([loaded.problem(it.path, it.found, it.expected) for it in faults]) from None


def _publish(loaded: Loaded, shared: Shared, config: Config, layout: Layout) -> None:
    try:
        publish(shared.table, config, layout)
    except ValueError as error:
        problem = loaded.problem(("virtual_service",), str(error), "a configuration that fits the tables")
        raise ConfigError([problem]) from None


def _keep_version(loaded: Loaded, warnings: list[str]) -> int:
    now = local_clock().now_iso()
    started = Version(0, now, user_name(os.getuid()), "given at start", os.path.abspath(loaded.file))
    number, trouble = adopt_text(VersionStore(state_dir()), loaded.text, started)
    if trouble:
        warnings.append(trouble)
    return number


def _make_inboxes(workers: int, undo: ExitStack) -> list[Inbox]:
    inboxes = []
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    for _ in range(workers):
        receive, send = (sock.detach() for sock in socket.socketpair(socket.AF_UNIX, kind))
        undo.callback(os.close, receive)
        undo.callback(os.close, send)
        inboxes.append(Inbox(receive, send))
    return inboxes


def _notes(config: Config, limits: WorkerLimits, workers: int, addresses: AddressOwner) -> Sequence[str]:
    notes = [f"raised {address}" for address in addresses.raised]
    wanted = sum(service.max_connections for service in config.virtual_services)
    if limits.connections * workers < wanted:
        notes.append(
            f"{limits.connections} connections fit into each of {workers} workers, max_connections add up to {wanted}: "
            f"the limit on open files (RLIMIT_NOFILE) is {limits.descriptors}"
        )
    return notes
