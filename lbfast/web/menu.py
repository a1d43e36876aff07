"""The menu, with the names of the guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lbfast.web.roles import CONFIGURE, OPERATE, REPORT, may

TOP: Final = "/lbadmin/"


@dataclass(frozen=True)
class Entry:
    """``role``: who sees it.  ``parts`` are the entries below it."""

    title: str
    path: str
    icon: str = ""
    role: str = REPORT
    parts: tuple[Entry, ...] = ()


MENU: Final = (
    Entry("System Overview", "", "overview"),
    Entry(
        "Local Configuration",
        "local",
        "local",
        CONFIGURE,
        (
            Entry("Service Socket Addresses", "local/sockets", role=CONFIGURE),
            Entry("Certificate", "local/certificate", role=CONFIGURE),
            Entry("API Keys", "local/keys", role=CONFIGURE),
            Entry("Graphing", "local/graphing", role=CONFIGURE),
            Entry("Logging & Workers", "local/system", role=CONFIGURE),
        ),
    ),
    Entry(
        "Cluster Configuration",
        "cluster",
        "cluster",
        parts=(
            Entry("Layer 7 – Virtual Services", "cluster/services"),
            Entry("Layer 7 – Real Servers", "cluster/reals"),
            Entry("Persistence", "cluster/persistence"),
            Entry("High-Availability Configuration", "cluster/ha"),
            Entry("Setup Wizard", "cluster/wizard", role=CONFIGURE),
        ),
    ),
    Entry(
        "Maintenance",
        "maintenance",
        "maintenance",
        OPERATE,
        (
            Entry("Backup & Restore", "maintenance/backup", role=CONFIGURE),
            Entry("Alerts", "maintenance/alerts", role=CONFIGURE),
            Entry("History", "maintenance/history", role=OPERATE),
            Entry("Restart Services", "maintenance/restart", role=CONFIGURE),
            Entry("Passwords", "maintenance/passwords", role=CONFIGURE),
        ),
    ),
    Entry("View Configuration", "view", "view"),
    Entry(
        "Reports",
        "reports",
        "reports",
        parts=(
            Entry("Graphs", "reports/graphs"),
            Entry("Connections", "reports/connections"),
            Entry("Top Clients", "reports/clients"),
            Entry("Availability", "reports/availability"),
        ),
    ),
    Entry(
        "Logs",
        "logs",
        "logs",
        parts=(
            Entry("Events, live", "logs/events"),
            Entry("Search", "logs/search"),
            Entry("Audit", "logs/audit", role=CONFIGURE),
        ),
    ),
    Entry("Support", "support", "support", OPERATE),
)


@dataclass(frozen=True)
class Shown:
    """An entry as a page has it."""

    title: str
    href: str
    icon: str
    is_here: bool
    is_open: bool
    parts: tuple[Shown, ...]


def menu_for(role: str, path: str) -> tuple[Shown, ...]:
    """What somebody may see, with the place where they are marked."""
    here = path.removeprefix(TOP)
    return tuple(_show(entry, role, here) for entry in MENU if may(role, entry.role))


def _show(entry: Entry, role: str, here: str) -> Shown:
    parts = tuple(_show(part, role, here) for part in entry.parts if may(role, part.role))
    is_here = here == entry.path or (not parts and entry.path != "" and here.startswith(entry.path + "/"))
    is_open = is_here or any(part.is_here for part in parts) or (bool(parts) and here.startswith(entry.path + "/"))
    href = TOP + (entry.path if not parts else entry.parts[0].path)
    if parts:
        href = parts[0].href
    return Shown(entry.title, href, entry.icon, is_here, is_open, parts)
