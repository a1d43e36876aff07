"""The faults of a pair, done to whichever box is active, and what is watched meanwhile."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from failover_rival import Rival
from ha_lab import VIP, Lab, heartbeats
from namespaces import inside
from waiting import processes_of_session

from lbfast.supervisor.netlink import IFF_RUNNING, Netlink


class TwoActives(threading.Thread):
    """Adds up the time in which both boxes had the service address up and a carrier, as their kernels say."""

    def __init__(self, found: Lab) -> None:
        super().__init__(daemon=True)
        self._lab = found
        self.ending = threading.Event()
        self.seconds = 0.0

    def run(self) -> None:
        sockets = []
        for name in ("a", "b"):
            with inside(self._lab.ns(name)):
                sockets.append(Netlink())
        before = time.monotonic()
        while not self.ending.is_set():
            # The first one twice: between the two looks the addresses may have changed hands.
            both = all(serves(sock) for sock in (*sockets, sockets[0]))
            now = time.monotonic()
            self.seconds += (now - before) * both
            before = now
            self.ending.wait(0.005)
        for sock in sockets:
            sock.__exit__()


def serves(netlink: Netlink) -> bool:
    """Whether this kernel has the service address on an interface with a carrier."""
    index = next((one.link for one in netlink.addresses() if str(one.address) == VIP), None)
    return index is not None and any(link.index == index and link.flags & IFF_RUNNING for link in netlink.links())


@dataclass(frozen=True)
class Scene:
    """Whom a fault befalls."""

    lab: Lab
    active: str
    passive: str


def power(scene: Scene) -> None:
    scene.lab.kill_box(scene.active)


def stop(scene: Scene) -> None:
    scene.lab.stop_box(scene.active)


def takeover(scene: Scene) -> None:
    scene.lab.verb(scene.passive, "takeover")


def hung(scene: Scene) -> None:
    scene.lab.hang(scene.active)


def link(scene: Scene) -> None:
    scene.lab.cut(scene.active, "lan")


def killed(scene: Scene) -> None:
    """Every process, but the kernel and the links live: the address stays up there for its lifetime."""
    scene.lab.kill_processes(scene.active)


def paused(scene: Scene) -> None:
    """A virtual machine that stands still for a second and a half, and goes on believing that it is active."""
    pids = processes_of_session(scene.lab.boxes[scene.active].pid)
    for cable in ("lan", "hb"):
        scene.lab.cut(scene.active, cable)
    for pid in pids:
        scene.lab.signal(pid, signal.SIGSTOP)
    time.sleep(1.5)
    for cable in ("lan", "hb"):
        scene.lab.mend(scene.active, cable)
    for pid in pids:
        scene.lab.signal(pid, signal.SIGCONT)


def one_path(scene: Scene) -> None:
    scene.lab.cut(scene.active, "hb")


def both_paths(scene: Scene) -> None:
    for name in (scene.active, scene.passive):
        scene.lab.deafen(name)


def split(scene: Scene) -> None:
    """Clients, servers and router reach both boxes, which reach each other by way of the router alone."""
    scene.lab.split()


def active_unheard(scene: Scene) -> None:
    scene.lab.deafen(scene.passive)


def passive_unheard(scene: Scene) -> None:
    scene.lab.deafen(scene.active)


def lossy(scene: Scene) -> None:
    """A third of all heartbeats lost, both ways, on both paths."""
    for name in (scene.active, scene.passive):
        scene.lab.nft(name, heartbeats("numgen random mod 100 < 33 drop"))


def ha_killed(scene: Scene) -> None:
    scene.lab.signal(scene.lab.boxes[scene.active].child("ha"), signal.SIGKILL)


def passive_lost(scene: Scene) -> None:
    scene.lab.kill_box(scene.passive)


def rejoin(scene: Scene) -> None:
    """The other box, which was down, comes back (``prepare`` has killed it)."""
    scene.lab.revive(scene.passive)
    scene.lab.start(scene.passive)


@dataclass(frozen=True)
class Case:
    """A fault, and whether the addresses must move (None: they may)."""

    fault: Callable[[Scene], None]
    moves: bool | None
    prepare: Callable[[Scene], None] | None = None


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "power": Case(power, True),
        "stop": Case(stop, True),
        "takeover": Case(takeover, True),
        "hung": Case(hung, True),
        "link": Case(link, True),
        "killed": Case(killed, True),
        "paused": Case(paused, None),
        "one_path": Case(one_path, False),
        "both_paths": Case(both_paths, False),
        "split": Case(split, False),
        "active_unheard": Case(active_unheard, False),
        "passive_unheard": Case(passive_unheard, False),
        "lossy": Case(lossy, False),
        "ha_killed": Case(ha_killed, False),
        "passive_lost": Case(passive_lost, False),
        "rejoin": Case(rejoin, False, passive_lost),
    }
)
WEATHER = ("one_path", "active_unheard", "passive_unheard", "lossy")
"""What may be so already when a fault comes; with the heartbeats of one direction gone, orders and farewells may be."""

# An order needs a peer that is heard; in a split nothing but heartbeats, by way of the router, tells that it lives.
SKIES = MappingProxyType({"takeover": ("", "", "one_path", "lossy"), "split": ("", "", "one_path")})


def random_turns(seed: int, count: int) -> list[tuple[str, str]]:
    """(weather or nothing, fault), from a seed."""
    dice = random.Random(seed)
    faults = [name for name in CASES if name not in WEATHER]
    turns = []
    for _ in range(count):
        fault = dice.choice(faults)
        turns.append((dice.choice(SKIES.get(fault, ("", "", *WEATHER))), fault))
    return turns


def look_at(found: Lab) -> Scene:
    """Who is active now."""
    return Scene(found, *(("a", "b") if found.holds("a") else ("b", "a")))


def mend(found: Lab, patience: float = 60.0) -> None:
    """Both boxes whole, linked and ready, whoever is active."""
    if isinstance(found, Rival):
        found.mend_all()
        return
    for name in ("a", "b"):
        nft = [*found.inside(name), "nft", "delete", "table", "inet", "t"]
        subprocess.run(nft, check=False, capture_output=True)
        box = found.boxes[name]
        for pid in processes_of_session(box.pid) if box.process.poll() is None else ():
            found.signal(pid, signal.SIGCONT)
        for cable in ("lan", "hb"):
            found.mend(name, cable)
    found.heal()
    for name in ("a", "b"):
        if found.boxes[name].process.poll() is not None:
            found.revive(name)
            found.start(name)
    found.wait_ready(patience)
