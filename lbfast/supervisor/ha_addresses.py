"""Service addresses in a pair: up only while this box is active, and only for as long as somebody says so.

The ha process raises them with a lifetime and renews it every second.  If it and
everything else here is killed or stopped, the kernel itself takes the addresses
off a few seconds later: a dead program leaves no address behind that the other box
would have to fight for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from lbfast.supervisor.address_plan import Placement, WantedAddress, plan_addresses
from lbfast.supervisor.addresses import AddressFaults, ServiceAddresses, asks_neighbours, remove_address
from lbfast.supervisor.neighbours import NeighbourProbe
from lbfast.supervisor.netlink import IPAddress, Link, Netlink


class AddressOwner:
    """The supervisor's side: raises addresses while there is no pair, only checks that they fit while there is one.

    ``stays_away``: there was a pair, whose other box kept the addresses; nothing is raised here until somebody says so.
    """

    def __init__(self, record: Path, *, is_paired: bool, stays_away: bool = False) -> None:
        self.record = record
        self.is_paired = is_paired
        self.stays_away = stays_away
        self._own = ServiceAddresses(record)

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether listeners must do without the addresses."""
        return self.is_paired or self.stays_away

    @property
    def raised(self) -> tuple[IPAddress, ...]:
        return self._own.raised

    def raise_all(self, wanted: Iterable[WantedAddress]) -> None:
        """In a pair, or after it: drop what a crash left, and see that every address has an interface."""
        if not self.may_be_elsewhere:
            self._own.raise_all(wanted)
            return
        self._own.raise_all(())
        _check_fit(wanted)

    def raise_more(self, wanted: Iterable[WantedAddress]) -> list[IPAddress]:
        if not self.may_be_elsewhere:
            return self._own.raise_more(wanted)
        _check_fit(wanted)
        return []

    def adopt(self) -> None:
        """After an upgrade in place: what the program before has raised is ours."""
        if not self.is_paired:
            self._own.adopt()

    def drop(self, addresses: Iterable[IPAddress]) -> list[str]:
        return self._own.drop(addresses)

    def drop_all(self) -> list[str]:
        return self._own.drop_all()

    def announce(self) -> list[str]:
        return self._own.announce()

    def hand_over(self) -> None:
        """The pair begins: what is up now is the ha process's, which finds it in the record."""
        self.is_paired, self.stays_away = True, False
        self._own.forget()

    def take_back(self, wanted: Iterable[WantedAddress], *, hold: bool) -> None:
        """There is no pair.  ``hold``: this box has the addresses, for good; AddressFaults if it cannot."""
        self.is_paired = False
        if hold:
            self._own.raise_all(wanted)
            self._own.keep()
        self.stays_away = not hold


class HeldAddresses(ServiceAddresses):
    """The ha process's side."""

    def __init__(self, record: Path) -> None:
        super().__init__(record)
        self._placements: list[Placement] = []
        self._probe: NeighbourProbe | None = None
        self._macs: set[bytes] = set()  # of this machine

    def set_wanted(self, wanted: Sequence[tuple[str, str | None]]) -> list[str]:
        """What is to be held when active: (address, interface or None); the problems, in words."""
        with Netlink() as netlink:
            links, here = netlink.links(), netlink.addresses()
            self._macs = {link.mac for link in links if link.mac}  # an answer without a MAC is no answer of ours
            ours = self._left_over(links, here) if self._record.exists() else {}
            asked = [WantedAddress(place, ip_address(text), link) for place, (text, link) in enumerate(wanted)]
            self._placements, faults = plan_addresses(
                asked, links, here, lambda address: address not in ours and netlink.is_local(address)
            )
        self.close_probe()
        return [f"{fault.found}; expected {fault.expected}" for fault in faults]

    def is_held(self) -> bool:
        """Whether a process before this one has left addresses up, a moment ago."""
        if not self._record.exists():
            return False
        with Netlink() as netlink:
            ours = self._left_over(netlink.links(), netlink.addresses())
        return any(placement.address in ours for placement in self._placements)

    def moving(self) -> set[str]:
        """Service addresses that this box has only while it is active."""
        return {str(placement.address) for placement in self._placements}

    def interfaces(self) -> list[str]:
        """Those that carry service addresses."""
        return sorted({placement.link.name for placement in self._placements if asks_neighbours(placement.link)})

    def hold(self, valid_s: int) -> list[str]:
        """Raise what is not up, renew what is, drop what is not wanted any more; what failed, in words."""
        kept = {placement.address for placement in self._placements}
        stale = [one for one in self._raised if one.address not in kept]
        up: list[Placement] = []
        with Netlink() as netlink:
            failures = _remove_all(netlink, stale)
            if {one.address for one in self._raised} != kept:
                self._write(self._placements)
            for placement in self._placements:
                try:
                    netlink.hold_address(placement.link.index, placement.address, placement.prefix, valid_s)
                    up.append(placement)
                except OSError as error:
                    failures.append(f"cannot raise {placement.address} on {placement.link.name}: {error.strerror}")
        self._raised = up
        return failures

    def drop_all(self) -> list[str]:
        """Take every wanted address off, whoever raised it."""
        every = {one.address: one for one in (*self._raised, *self._placements)}
        with Netlink() as netlink:
            failures = _remove_all(netlink, every.values())
        if not failures:
            self._raised = []
            self._record.unlink(missing_ok=True)
        return failures

    # --- asking the neighbours --------------------------------------------------

    def send_probe(self) -> None:
        """Ask the LAN for the addresses; OSError when that is not possible."""
        if self._probe is None:
            wanted: dict[Link, list[IPAddress]] = {}
            for placement in self._placements:
                if asks_neighbours(placement.link):
                    wanted.setdefault(placement.link, []).append(placement.address)
            self._probe = NeighbourProbe(wanted)
        self._probe.send()

    def read_probe(self) -> tuple[dict[str, str], bool]:
        """Which ones another machine answered for, with its MAC, and whether another machine asked for one.

        A machine with two interfaces in one LAN may answer itself, by the other one.
        """
        if self._probe is None:
            return {}, False
        taken, asked = self._probe.read()
        others = {str(address): mac.hex(":") for address, mac in taken.items() if mac not in self._macs}
        return others, bool(asked)

    def close_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def _remove_all(netlink: Netlink, placements: Iterable[Placement]) -> list[str]:
    failures = []
    for placement in placements:
        try:
            remove_address(netlink, placement.link.index, placement.address, placement.prefix)
        except OSError as error:
            failures.append(f"cannot drop {placement.address} from {placement.link.name}: {error.strerror}")
    return failures


def _check_fit(wanted: Iterable[WantedAddress]) -> None:
    with Netlink() as netlink:
        _, faults = plan_addresses(wanted, netlink.links(), netlink.addresses(), netlink.is_local)
    if faults:
        raise AddressFaults(faults)
