"""A candidate on its way from control to the supervisor: text, ids and slots as one document in a memfd."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from lbfast.config.commit import ids_of
from lbfast.config.ids import KnownIds, assign_ids
from lbfast.config.layout import Layout, ListenerSpec
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
    """What ``pack_candidate`` packed; ConfigError, ValueError or KeyError when it is not that."""
    size = os.fstat(fd).st_size
    document: dict[str, Any] = json.loads(os.pread(fd, size, 0))
    loaded = parse(document["text"], document["file"])
    known = KnownIds({(service, real): UUID(text) for service, real, text in document["ids"]})
    config, _ = assign_ids(loaded.config, known)
    services = {label: int(slot) for label, slot in document["services"]}
    reals = {(service, real): int(slot) for service, real, slot in document["reals"]}
    listeners = tuple(
        ListenerSpec(services[service.label], service.label, service.address, port)
        for service in config.virtual_services
        for port in service.port_numbers
    )
    layout = Layout(services, reals, listeners, *document["next"])
    return Candidate(loaded, Placed(config, layout), int(document["version"]))
