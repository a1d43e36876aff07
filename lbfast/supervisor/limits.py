"""How many connections, descriptors and pipes this machine lets a worker have."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from lbfast.supervisor.capabilities import Capability, has

PIPE_SIZE = 1_048_576  # the kernel's most for an ordinary user; bulk costs a third less CPU than with 256 KiB
MOST_PIPES = 256
_SPARE_FDS = 96  # standard streams, shared memory, channels, inboxes, epoll, and what Python opens
_FDS_A_WORKER = 8  # two seats, each with its slab, its ring and its inbox
_PIPE_PAGES = Path("/proc/sys/fs/pipe-user-pages-soft")
_PAGE = resource.getpagesize()


@dataclass(frozen=True)
class WorkerLimits:
    """What one worker may use."""

    descriptors: int
    connections: int
    pipes: int


def raise_descriptor_limit() -> int:
    """Lift the soft limit on open files to the hard one, for us and our children; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def plan_limits(descriptors: int, listeners: int, workers: int, wanted: int, pipes: int) -> WorkerLimits:
    """Share out one worker's descriptors: two for each connection, two for each pipe, some to spare.

    ``wanted`` is the sum of the services' ``max_connections``, ``listeners`` the
    listening sockets of one worker, ``pipes`` what the machine lets each worker have.
    """
    pipes = max(0, min(pipes, descriptors // 16))
    free = descriptors - _SPARE_FDS - listeners - _FDS_A_WORKER * workers - 2 * pipes
    return WorkerLimits(descriptors, max(16, min(wanted, free // 2)), pipes)


def pipes_for_each(workers: int) -> int:
    """Full-size pipes for each worker: without privileges the kernel counts them per user, over all processes.

    Of those that lift this, workers keep CAP_SYS_RESOURCE (``privileges.py``), and never CAP_SYS_ADMIN.
    """
    if has(Capability.SYS_RESOURCE):
        return MOST_PIPES
    try:
        pages = int(_PIPE_PAGES.read_text())
    except (OSError, ValueError):
        pages = 16_384  # the kernel's default
    if pages == 0:
        return MOST_PIPES
    return min(MOST_PIPES, pages * _PAGE // PIPE_SIZE // workers)
