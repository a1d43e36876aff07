"""Everything that must be had before the first fork: configuration, locks, addresses, listeners, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from lbfast.config.aside import keep_aside
from lbfast.config.errors import ConfigError, Problem
from lbfast.config.first import choose_first
from lbfast.config.id_file import keep_ids
from lbfast.config.layout import Layout, plan_layout
from lbfast.config.own import keep_own_settings
from lbfast.config.paths import (
    RUNTIME_VARIABLE,
    STATE_VARIABLE,
    control_socket,
    ensure_dir,
    runtime_dir,
    state_dir,
)
from lbfast.config.publish import Placed, publish
from lbfast.config.store import Loaded
from lbfast.config.taken import note_taken
from lbfast.config.versions import GIVEN, Version, VersionStore, adopt_text
from lbfast.control.access import Access, GroupFault, access_of
from lbfast.control.admin import restore_admin
from lbfast.control.catalog import catalog_of
from lbfast.control.certificate_file import certificate_fault
from lbfast.control.engine import local_clock
from lbfast.control.peer import user_name
from lbfast.model.appliance import Config
from lbfast.supervisor import capabilities
from lbfast.supervisor.address_plan import WantedAddress
from lbfast.supervisor.addresses import AddressFaults, decode_record
from lbfast.supervisor.ha_addresses import AddressOwner
from lbfast.supervisor.ha_body import address_owner, former_pair
from lbfast.supervisor.limits import WorkerLimits, pipes_for_each, plan_limits, raise_descriptor_limit
from lbfast.supervisor.listeners import Listener, ListenFaults, close_listeners, open_listeners, open_more
from lbfast.supervisor.lock import Lock
from lbfast.supervisor.orphans import decode_record as decode_children
from lbfast.supervisor.orphans import end_orphans, find_orphans
from lbfast.supervisor.privileges import Privileges, User, UserFault, decide, why_not_executable
from lbfast.supervisor.seats import Seats, make_counters
from lbfast.supervisor.shared import Shared, create_shared
from lbfast.supervisor.web_door import WebDoor, open_web_door


@dataclass
class Assets:
    """What the supervisor owns, ready to be inherited."""

    config_path: Path
    loaded: Loaded  # text of the configuration that runs
    config: Config
    layout: Layout
    workers: int
    limits: WorkerLimits
    shared: Shared
    listeners: list[Listener]
    seats: Seats
    addresses: AddressOwner
    children_record: Path
    locks: list[Lock]
    privileges: Privileges
    access: Access
    web: list[WebDoor] = field(default_factory=list)  # where the web interface listens: one, or none
    version: int = 0  # of the configuration, as the version store counts
    probed: Placed | None = None  # what health works on, when that is not what runs
    spare: list[Listener] = field(default_factory=list)  # open, but not (or no longer) any worker's
    is_shut: bool = False  # workers get their listeners later
    notes: list[str] = field(default_factory=list)  # for the events
    warnings: list[str] = field(default_factory=list)  # for stderr
    owned: ExitStack = field(default_factory=ExitStack)

    def close_web(self) -> None:
        """Of the supervisor, or in a child for which it is not."""
        close_doors(self.web)

    def forget_locks(self) -> None:
        """In a child: the locks are the supervisor's, and must end with it."""
        for lock in self.locks:
            lock.forget()


def prepare(config_path: Path, loaded: Loaded, locks: list[Lock]) -> Assets:
    """Get everything, or raise and leave the machine as it was.  ``loaded``: the file's; ``locks``: taken already.

    ConfigError for what this machine refuses; OSError for memory and descriptors.
    """
    with ExitStack() as undo:
        for lock in locks:
            undo.callback(lock.release)
        children_record = runtime_dir() / "children.json"
        undo.callback(lambda: children_record.unlink(missing_ok=True))
        newest, damage = _look_for_damage(children_record)
        given = loaded
        loaded, chosen = choose_first(given, os.path.abspath(config_path), VersionStore(state_dir()))
        privileges, access = rights_of(loaded)
        notes = [*damage, *_end_orphans(children_record), *privileges.notes, *([chosen] if chosen else [])]
        layout = plan_layout(loaded.config)
        workers = workers_of(loaded.config)
        limits = _limits(loaded.config, layout, workers)
        addresses = address_owner()
        undo.callback(addresses.drop_all)
        listeners = _reach(loaded, loaded.config, layout, workers, addresses)
        undo.callback(close_listeners, listeners)
        web = open_web_door(loaded.config.web, loaded.problem) if loaded.config.web else None
        doors = [web] if web else []
        undo.callback(close_doors, doors)
        # Only now: a start that this machine refuses changes nothing, not even the kept identities.
        config, warnings = keep_ids(loaded.config, state_dir())
        shared = create_shared(config, layout, make_counters())
        _publish(loaded, shared, config, layout)
        # Before the first worker: a server that was halted must not get a client until control is up.
        trouble = restore_admin(state_dir(), catalog_of(config, layout), shared, local_clock())
        notes += [trouble] if trouble else []
        seats = Seats(shared, limits.connections)
        undo.callback(seats.close)
        for place in range(workers):
            seats.take(place)
        version = _keep_version(loaded, given, config_path, damage, newest)
        warnings += damage
        notes += [told for told in warnings if told not in notes]
        warnings = [f"warning: {doubt}" for doubt in (*loaded.warnings, *_doubts(loaded))] + warnings
        notes += _notes(config, limits, workers, addresses)
        return Assets(
            config_path,
            loaded,
            config,
            layout,
            workers,
            limits,
            shared,
            listeners,
            seats,
            addresses,
            children_record,
            locks,
            privileges,
            access,
            doors,
            version,
            notes=notes,
            warnings=warnings,
            owned=undo.pop_all(),
        )


def top_up(assets: Assets) -> None:
    """After a take-over: the sockets and the web's door that nobody held any more."""
    services = {service.label: service for service in assets.config.virtual_services}
    for at, listener in enumerate(assets.listeners):
        more = open_more(listener, services[listener.spec.label], assets.workers)
        assets.listeners[at] = Listener(listener.spec, (*listener.fds, *more))
    if assets.config.web is not None and not assets.web:
        assets.web.append(open_web_door(assets.config.web, assets.loaded.problem))


def workers_of(config: Config) -> int:
    """How many: as configured, or one for each core."""
    return config.workers or len(os.sched_getaffinity(0))


def take_locks(undo: ExitStack) -> list[Lock]:
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


def rights_of(loaded: Loaded) -> tuple[Privileges, Access]:
    """Whom the children become, and who may use the control socket."""
    config = loaded.config
    places = [state_dir(), *([Path(config.log.file)] if config.log.file else [])]
    try:
        privileges = decide(config.user, places, capabilities.held())
        if privileges.user is not None:
            _check_scripts(loaded, privileges.user)
        users = {os.geteuid()} | ({privileges.user.uid} if privileges.user else set())
        owner = privileges.user.uid if privileges.user else -1
        return privileges, access_of(config.control, frozenset(users), owner=owner)
    except UserFault as fault:
        problem = loaded.problem(("user",), fault.found, fault.expected)
    except GroupFault as fault:
        problem = loaded.problem(("control", fault.key), fault.found, fault.expected)
    raise ConfigError([problem])


def _check_scripts(loaded: Loaded, user: User) -> None:
    """A script that health cannot run would take every server of its service down."""
    problems = [
        loaded.problem(("virtual_service", place, "health_check", "script"), found, "a program that it may execute")
        for place, service in enumerate(loaded.config.virtual_services)
        if service.health_check.script and (found := why_not_executable(Path(service.health_check.script), user))
    ]
    if problems:
        raise ConfigError(problems)


def _look_for_damage(children_record: Path) -> tuple[int, list[str]]:
    """Records that a crash or a bad disk has spoiled are kept aside; the newest version's number, and what to tell."""
    store = VersionStore(state_dir())
    newest = store.newest()
    found = (
        keep_aside(children_record, decode_children, "processes of a killed supervisor cannot be found by it"),
        keep_aside(
            state_dir() / "addresses.json", decode_record, "addresses that a killed supervisor raised stay as they are"
        ),
        *store.move_damaged(),
    )
    return newest, [told for told in found if told]


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
        return open_listeners(layout.listeners, services, workers, free_bind=addresses.may_be_elsewhere)
    except (AddressFaults, ListenFaults) as error:
        faults = sorted(error.faults, key=lambda fault: fault.service)
        raise ConfigError([loaded.problem(it.path, it.found, it.expected) for it in faults]) from None


def _publish(loaded: Loaded, shared: Shared, config: Config, layout: Layout) -> None:
    try:
        publish(shared.table, config, layout)
    except ValueError as error:
        problem = loaded.problem(("virtual_service",), str(error), "a configuration that fits the tables")
        raise ConfigError([problem]) from None


def _doubts(loaded: Loaded) -> Iterator[Problem]:
    """A log that cannot be written, a certificate that the web interface cannot use: no reasons to leave clients alone,
    but to say so where starts are looked at.
    """
    file = loaded.config.log.file
    folder = None if file is None else Path(file).parent
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        what = "cannot be written to" if folder.is_dir() else "does not exist"
        found, expected = f'"{file}", but {folder} {what}', "a file in a folder that can be written to"
        yield loaded.problem(("log", "file"), found, expected)
    if fault := certificate_fault(loaded.config.web):
        yield loaded.problem(("web", fault.key), fault.found, fault.expected)


def _keep_version(loaded: Loaded, given: Loaded, file: Path, told: list[str], newest: int) -> int:
    """The number of what runs, started with ``file``; ``newest`` was given once, readable now or not.

    ``told`` gets what was wrong.  ``given``: what the file says, which is no news from now on.
    """
    now = local_clock().now_iso()
    started = Version(0, now, user_name(os.getuid()), GIVEN, os.path.abspath(file))
    number, trouble = adopt_text(VersionStore(state_dir()), loaded.text, started, newest)
    if trouble:
        told.append(trouble)
    try:
        note_taken(state_dir(), os.path.abspath(file), given.text)
        keep_own_settings(state_dir(), loaded.config, number)
    except OSError as error:
        told.append(f"that {file} was taken cannot be kept in {state_dir()}: {error.strerror}")
    return number


def close_doors(doors: list[WebDoor]) -> None:
    while doors:
        doors.pop().close()


def _notes(config: Config, limits: WorkerLimits, workers: int, addresses: AddressOwner) -> Sequence[str]:
    notes = [f"raised {address}" for address in addresses.raised]
    if former := former_pair():
        notes.append(former.words)
    wanted = sum(service.max_connections for service in config.virtual_services)
    if limits.connections * workers < wanted:
        notes.append(
            f"{limits.connections} connections fit into each of {workers} workers, max_connections add up to {wanted}: "
            f"the limit on open files (RLIMIT_NOFILE) is {limits.descriptors}"
        )
    return notes
