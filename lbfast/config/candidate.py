"""A candidate on its way from control to the supervisor: text, ids and slots as one document in a memfd."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from lbfast.config.commit import MOST_REALS, MOST_SERVICES, ids_of
from lbfast.config.ids import KnownIds, assign_ids
from lbfast.config.layout import Layout, ListenerSpec
from lbfast.config.own import own_of, with_own
from lbfast.config.publish import Placed
from lbfast.config.store import Loaded, parse


@dataclass(frozen=True)
class Candidate:
    """A configuration that has a version number and its slots, ready to become the running one."""

    loaded: Loaded
    placed: Placed
    version: int


def pack_candidate(candidate: Candidate) -> int:
    """A memfd that holds it; the caller closes it.  A message would be too small."""
    layout = candidate.placed.layout
    document = {
        "text": candidate.loaded.text,
        "file": candidate.loaded.file,
        "version": candidate.version,
        "ids": [[*key, str(identity)] for key, identity in ids_of(candidate.placed.config).ids.items()],
        "services": list(layout.services.items()),
        "reals": [[*key, slot] for key, slot in layout.reals.items()],
        "own": own_of(candidate.placed.config),
        "next": [layout.next_service, layout.next_real],
    }
    fd = os.memfd_create("candidate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as stream:
            stream.write(json.dumps(document).encode())
    except BaseException:
        os.close(fd)
        raise
    return fd


def unpack_candidate(fd: int) -> Candidate:
    """What ``pack_candidate`` packed; ConfigError or ValueError when it is not that.

    The supervisor believes nothing of it: whoever has taken control over may send anything.
    """
    try:
        return _unpack(json.loads(os.pread(fd, os.fstat(fd).st_size, 0)))
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a candidate: {type(error).__name__}: {error}") from error


def _unpack(document: dict[str, Any]) -> Candidate:
    loaded = parse(document["text"], document["file"])
    if "own" in document:  # an earlier release does not say
        loaded = replace(loaded, config=with_own(loaded.config, document["own"]))
    known = KnownIds({(service, real): UUID(text) for service, real, text in document["ids"]})
    config, _ = assign_ids(loaded.config, known)
    services = {label: int(slot) for label, slot in document["services"]}
    reals = {(service, real): int(slot) for service, real, slot in document["reals"]}
    _check_slots(services.values(), MOST_SERVICES)
    _check_slots(reals.values(), MOST_REALS)
    listeners = tuple(
        ListenerSpec(services[service.label], service.label, service.address, port)
        for service in config.virtual_services
        for port in service.port_numbers
    )
    layout = Layout(services, reals, listeners, *map(int, document["next"]))
    return Candidate(loaded, Placed(config, layout), int(document["version"]))


def _check_slots(slots: Collection[int], most: int) -> None:
    if len(set(slots)) != len(slots) or not all(0 <= slot < most for slot in slots):
        raise ValueError(f"not a candidate: slots that are not each one of 0 to {most - 1}")
