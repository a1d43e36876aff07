"""Whose answer it is when the LAN is asked for the pair's addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lbfast.supervisor import ha_addresses
from lbfast.supervisor.ha_addresses import HeldAddresses
from lbfast.supervisor.netlink import Link

OURS, THEIRS = bytes(5) + b"\1", bytes(5) + b"\2"


class Kernel:
    """Two interfaces, one of them a tunnel, which has no MAC."""

    def __enter__(self) -> Any:
        links = [Link(1, "eth0", 0, OURS), Link(2, "wg0", 0, b"")]
        return SimpleNamespace(links=lambda: links, addresses=lambda: [], is_local=lambda _: False)

    def __exit__(self, *_: object) -> None: ...


def test_who_has_an_address_is_another_machine_unless_the_mac_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour that does not say its MAC is another one as well: its address must not be taken."""
    monkeypatch.setattr(ha_addresses, "Netlink", Kernel)
    held = HeldAddresses(tmp_path / "record")
    held.set_wanted([])
    taken = {IPv4Address("10.0.0.1"): OURS, IPv4Address("10.0.0.2"): THEIRS, IPv6Address("fd00::1"): b""}
    held._probe = SimpleNamespace(read=lambda: (taken, set()))  # type: ignore[assignment]
    assert held.read_probe() == ({"10.0.0.2": "00:00:00:00:00:02", "fd00::1": ""}, False)
