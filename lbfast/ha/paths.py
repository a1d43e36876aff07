"""Further ways of the heartbeats beside the first, which is the pair's own: what may be added and removed.  Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from ipaddress import ip_address

from lbfast.control.protocol import ControlError
from lbfast.ha.pair_file import Pair

MOST_PATHS = 8


def check_path(local: str, peer: str) -> tuple[str, str]:
    """Both as they are always written; ControlError for what is no address."""
    found = []
    for name, text in (("local", local), ("peer", peer)):
        try:
            found.append(str(ip_address(text)))
        except ValueError:
            raise ControlError("bad_argument", f"{name}: {text[:60]!r} is not an IP address") from None
    return found[0], found[1]


def add_path(pair: Pair, local: str, peer: str, moving: Set[str]) -> Pair:
    """``moving``: the service addresses, which are now here, now there."""
    for name, address in (("local", local), ("peer", peer)):
        if address in moving:
            raise ControlError("refused", f"{name}: {address} is a service address, which moves between the boxes")
    for ours, its in pair.all_paths:
        if local == ours or peer == its:
            raise ControlError("refused", f"there is a path {ours} - {its} already; an address is in one path only")
    if len(pair.all_paths) >= MOST_PATHS:
        raise ControlError("refused", f"there are {MOST_PATHS} paths already, which is the most")
    return replace(pair, paths=(*pair.paths, (local, peer)))


def drop_path(pair: Pair, local: str, peer: str) -> Pair:
    """The first one stays as long as the pair."""
    if (local, peer) == (pair.local, pair.peer):
        raise ControlError("refused", f"{local} - {peer} is the path that the pair was made over: it stays")
    if (local, peer) not in pair.paths:
        known = ", ".join(f"{ours} - {its}" for ours, its in pair.paths) or "none"
        raise ControlError("refused", f"there is no further path {local} - {peer}; there are: {known}")
    return replace(pair, paths=tuple(way for way in pair.paths if way != (local, peer)))
