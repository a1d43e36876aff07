"""Raises service addresses on this machine's interfaces, announces them, and drops them again.

Every address is written to a record before it is raised, so that whatever is left
after a crash is adopted or dropped by the next start.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from lbfast.config.files import write_atomically
from lbfast.supervisor import arp
from lbfast.supervisor.address_plan import Placement, WantedAddress, plan_addresses
from lbfast.supervisor.faults import Fault
from lbfast.supervisor.netlink import (
    FOREVER,
    IFA_F_DADFAILED,
    IFA_F_TENTATIVE,
    IFF_LOOPBACK,
    IFF_NOARP,
    AddressWatch,
    IPAddress,
    Link,
    LinkAddress,
    Netlink,
)

IPV6_DAD_TIMEOUT = 5.0  # the kernel's own detection takes one to two seconds

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RIGHT = "root, or CAP_NET_ADMIN and CAP_NET_RAW, or an address that is already on this machine"
_Record = tuple[str, IPAddress, int]  # interface, address, prefix


class AddressFaults(Exception):
    """Addresses that cannot be had; nothing was left raised."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.found for fault in faults))
        self.faults = tuple(faults)


class ServiceAddresses:
    """The addresses that this supervisor has raised."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._raised: list[Placement] = []

    @property
    def raised(self) -> tuple[IPAddress, ...]:
        return tuple(placement.address for placement in self._raised)

    def raise_all(self, wanted: Iterable[WantedAddress]) -> None:
        """Raise what is not here yet, or raise AddressFaults and leave the machine as it was."""
        with Netlink() as netlink:
            links, here = netlink.links(), netlink.addresses()
            left_over = {} if not self._record.exists() else self._left_over(links, here)
            wanted = list(wanted)
            placements, faults = plan_addresses(
                wanted, links, here, lambda address: address not in left_over and netlink.is_local(address)
            )
            if not faults:
                faults = self._check(placements, left_over)
            if faults:
                raise AddressFaults(faults)
            try:
                self._apply(netlink, placements, left_over)
            except AddressFaults:
                self.drop_all()
                raise
        self.announce()

    def adopt(self) -> None:
        """Those of the record that are up are ours: the supervisor before us raised them."""
        if not self._record.exists():
            return
        with Netlink() as netlink:
            links, here = netlink.links(), netlink.addresses()
        left_over = self._left_over(links, here)
        by_index = {link.index: link for link in links}
        self._raised = [Placement(by_index[one.link], one.address, 0) for one in left_over.values()]

    def raise_more(self, wanted: Iterable[WantedAddress]) -> list[IPAddress]:
        """Raise what is not here yet beside the others; AddressFaults, and then nothing more is raised."""
        with Netlink() as netlink:
            placements, faults = plan_addresses(wanted, netlink.links(), netlink.addresses(), netlink.is_local)
            if not faults:
                faults = self._check(placements, {})
            if faults:
                raise AddressFaults(faults)
            try:
                self._add(netlink, placements, self._raised)
            except AddressFaults:
                self.drop([placement.address for placement in placements])
                raise
        self.announce(placements)
        return [placement.address for placement in placements]

    def drop(self, addresses: Iterable[IPAddress]) -> list[str]:
        """Take some raised addresses off; what could not be, in words."""
        gone = set(addresses)
        dropped = [placement for placement in self._raised if placement.address in gone]
        kept = [placement for placement in self._raised if placement.address not in gone]
        if not dropped:
            return []
        self._raised = dropped
        failures = self.drop_all()
        self._raised = kept
        if kept and not failures:
            self._write(kept)
        return failures

    def announce(self, placements: Sequence[Placement] | None = None) -> list[str]:
        """Tell the neighbours; what could not be sent, in words.  To be repeated: an announcement can be lost."""
        failures = []
        for placement in self._raised if placements is None else placements:
            if not asks_neighbours(placement.link):
                continue
            try:
                arp.announce(placement.link, placement.address)
            except OSError as error:
                failures.append(f"cannot announce {placement.address} on {placement.link.name}: {error.strerror}")
        return failures

    def keep(self) -> None:
        """What was raised with a lifetime stays for good."""
        with Netlink() as netlink:
            for placement in self._raised:
                netlink.hold_address(placement.link.index, placement.address, placement.prefix, FOREVER)

    def forget(self) -> None:
        """Leave what is raised to somebody else, who reads the record."""
        self._raised = []

    def drop_all(self) -> list[str]:
        """Take every raised address off; what could not be, in words."""
        failures = []
        if self._raised:
            with Netlink() as netlink:
                for placement in self._raised:
                    try:
                        remove_address(netlink, placement.link.index, placement.address, placement.prefix)
                    except OSError as error:
                        where = f"{placement.address} from {placement.link.name}"
                        failures.append(f"cannot drop {where}: {error.strerror}")
            # Without any raised here, a record of addresses left by a crash is still the next start's to work off.
            if not failures:
                self._record.unlink(missing_ok=True)
        self._raised = []
        return failures

    def _check(self, placements: Sequence[Placement], left_over: dict[IPAddress, LinkAddress]) -> list[Fault]:
        """Ask the neighbours whether another machine has one of the IPv4 addresses."""
        wanted: dict[Link, list[IPv4Address]] = {}
        for placement in placements:
            address = placement.address
            if isinstance(address, IPv4Address) and address not in left_over and asks_neighbours(placement.link):
                wanted.setdefault(placement.link, []).append(address)
        try:
            taken = arp.find_conflicts(wanted)
        except OSError as error:
            return [_refused(placement, error) for placement in placements if placement.link in wanted]
        return [_in_use(placement, taken) for placement in placements if placement.address in taken]

    def _apply(
        self, netlink: Netlink, placements: Sequence[Placement], left_over: dict[IPAddress, LinkAddress]
    ) -> None:
        """Drop what a crash left and nobody wants, raise the rest, wait for the kernel's IPv6 detection."""
        kept = {placement.address: placement for placement in placements}
        for address, old in left_over.items():
            if address not in kept or kept[address].link.index != old.link:
                remove_address(netlink, old.link, address, old.prefix)
        if not placements:
            self._record.unlink(missing_ok=True)
            return
        # What is up already comes first, so that a failure further on drops it too.
        self._add(netlink, sorted(placements, key=lambda one: one.address not in left_over), ())

    def _add(self, netlink: Netlink, placements: Sequence[Placement], beside: Sequence[Placement]) -> None:
        """Record them, with those that are up ``beside`` them, raise them, wait for the kernel's IPv6 detection."""
        if not placements:
            return
        self._write([*beside, *placements])
        with AddressWatch() as watch:
            for placement in placements:
                self._raised.append(placement)
                try:
                    netlink.add_address(placement.link.index, placement.address, placement.prefix)
                except FileExistsError:
                    pass  # left by a crash: adopted
                except OSError as error:
                    self._raised.remove(placement)
                    raise AddressFaults([_refused(placement, error)]) from error
            _wait_for_ipv6(netlink, watch, placements)

    def _write(self, placements: Sequence[Placement]) -> None:
        entries = [[one.link.name, str(one.address), one.prefix] for one in placements]
        # By a new name each time: the directory is open to the user of control, who could have laid a link there.
        document = json.dumps({"boot": _boot_id(), "addresses": entries})
        # A takeover must not wait for a disk: the record is of this boot alone, a power cut takes addresses and record.
        write_atomically(self._record, document.encode(), mode=0o600, outlives_power=False)

    def _left_over(self, links: Sequence[Link], here: Sequence[LinkAddress]) -> dict[IPAddress, LinkAddress]:
        """Addresses of the record that are still up; none of an earlier boot, whoever raised them since."""
        recorded = read_record(self._record)
        names = {link.index: link.name for link in links}
        return {one.address: one for one in here if (names.get(one.link, ""), one.address, one.prefix) in recorded}


def decode_record(document: Any) -> tuple[str, set[_Record]]:
    """The boot and what was raised in it; an exception for anything that is not ours."""
    addresses = {(str(name), ip_address(text), int(prefix)) for name, text, prefix in document["addresses"]}
    return str(document["boot"]), addresses


def read_record(record: Path) -> set[_Record]:
    """What was raised since this boot, as far as the record can be read."""
    try:
        boot, addresses = decode_record(json.loads(record.read_text()))
        return addresses if boot == _boot_id() else set()
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return set()  # torn by a power cut: that boot's addresses are gone with it


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def asks_neighbours(link: Link) -> bool:
    """Whether there are neighbours on it that keep our MAC."""
    return len(link.mac) == 6 and not link.flags & (IFF_LOOPBACK | IFF_NOARP)


def remove_address(netlink: Netlink, link: int, address: IPAddress, prefix: int) -> None:
    """Take it off; no error when it, or its interface, is gone already."""
    try:
        netlink.remove_address(link, address, prefix)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):  # already gone, or its interface is
            raise


def _wait_for_ipv6(netlink: Netlink, watch: AddressWatch, placements: Sequence[Placement]) -> None:
    """Wait until no raised address is tentative; AddressFaults when another machine has one."""
    pending: dict[tuple[int, IPAddress], Placement] = {
        (one.link.index, one.address): one for one in placements if one.address.version == 6
    }
    deadline = time.monotonic() + IPV6_DAD_TIMEOUT
    changed = netlink.addresses() if pending else []
    while pending:
        for one in changed:
            placement = pending.get((one.link, one.address))
            if placement is None:
                continue
            if one.flags & IFA_F_DADFAILED:
                raise AddressFaults([_in_use(placement, {})])
            if not one.flags & IFA_F_TENTATIVE:
                del pending[one.link, one.address]
        left = deadline - time.monotonic()
        if pending and left <= 0:
            raise AddressFaults([_undecided(placement) for placement in pending.values()])
        changed = watch.wait(left) if pending else []


def _in_use(placement: Placement, macs: dict[IPv4Address, bytes]) -> Fault:
    mac = macs.get(placement.address) if isinstance(placement.address, IPv4Address) else None
    who = f"the machine with MAC {mac.hex(':')}" if mac else "another machine"
    found = f'"{placement.address}", which {who} on {placement.link.name} has already'
    return Fault(placement.service, "address", found, "an address that no other machine uses")


def _undecided(placement: Placement) -> Fault:
    found = f'"{placement.address}", whose duplicate address detection on {placement.link.name} does not end'
    return Fault(placement.service, "address", found, f"an end within {IPV6_DAD_TIMEOUT:.0f} s; is the link up?")


def _refused(placement: Placement, error: OSError) -> Fault:
    where = f'"{placement.address}", which must be raised on {placement.link.name}'
    if error.errno in (errno.EPERM, errno.EACCES):
        return Fault(placement.service, "address", f"{where}, without the right to do so", _RIGHT)
    return Fault(placement.service, "address", f"{where}: {error.strerror}", "an interface that takes the address")
