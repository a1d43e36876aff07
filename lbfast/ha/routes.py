"""Real servers that no probe asks for: whether this box has a route to them at all."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from lbfast.ha.plan import HaPlan

_EVERY_MS = 5000
# No route; unreachable; prohibited; a kernel without IPv6.
_NONE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EAFNOSUPPORT)


@dataclass
class Routes:
    """Looked at again now and then: a route comes and goes with its interface."""

    _of: HaPlan | None = None
    _at: int = 0
    _found: Sequence[str] = field(default=())

    def problems(self, plan: HaPlan, now_ms: int) -> Sequence[str]:
        """In words; nothing of servers that are probed, because their probes say more."""
        if plan is not self._of or now_ms - self._at >= _EVERY_MS:
            self._of, self._at = plan, now_ms
            self._found = [
                f"there is no route to {real.label} of {service.label} ({real.address})"
                for service in plan.services
                for real in service.reals
                if real.address and not real.is_probed and not has_route(real.address)
            ]
        return self._found


def has_route(address: str) -> bool:
    """By the kernel's own table; no packet is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))
    except OSError as error:
        return error.errno not in _NONE
    return True
