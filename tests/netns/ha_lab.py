"""A hospital in network namespaces: clients, two appliances, three real servers, a router, a switch, a second cable."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import trustme
from harness import Lbfast, processes_of_session, render_toml, scaled, virtual_service, wait_for
from namespaces import ip
from waiting import children_of

from lbfast.ha.echo_path import IDENTITY

VIP, ROUTER = "10.77.0.100", "10.77.0.1"
BOXES = {"a": "10.77.0.11", "b": "10.77.0.12"}
CABLE = {"a": "10.78.0.11", "b": "10.78.0.12"}
SERVERS = ("10.77.0.21", "10.77.0.22", "10.77.0.23")
PORT = 443
HERE = Path(__file__).parent
KEY = "11" * 32
PATIENT = (sys.executable, str(HERE / "ha_patient.py"))  # runs a box that gives a move of connections more time


def heartbeats(words: str) -> str:
    """A firewall that does that with heartbeats that arrive; those by way of a ping address are echo replies."""
    rules = (
        f"add rule inet t c {match} {words}\n"
        for match in ("udp dport 6694", f"icmp id {IDENTITY}", f"icmpv6 id {IDENTITY}")
    )
    return "add table inet t\nadd chain inet t c { type filter hook input priority 0; policy accept; }\n" + "".join(
        rules
    )


@dataclass
class Lab:
    """Names of the namespaces, and the processes in them."""

    prefix: str
    directory: Path
    settings: dict[str, Any] = field(default_factory=dict)  # of [ha]
    service: dict[str, Any] = field(default_factory=dict)
    through: Sequence[str] = ()  # the words of a program that runs every box
    boxes: dict[str, Lbfast] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def ns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def inside(self, name: str) -> list[str]:
        """The words that run a command in a namespace."""
        return ["ip", "netns", "exec", self.ns(name)]

    def ip(self, name: str, *words: str) -> str:
        return ip("-n", self.ns(name), *words)

    def nft(self, name: str, rules: str) -> None:
        """Load firewall rules into a namespace."""
        subprocess.run([*self.inside(name), "nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)

    # --- links ------------------------------------------------------------------

    def cut(self, name: str, cable: str = "lan") -> None:
        """Pull the plug on the switch's side: the box loses its carrier."""
        self.ip("sw", "link", "set", f"{cable}-{name}", "down")

    def mend(self, name: str, cable: str = "lan") -> None:
        self.ip("sw", "link", "set", f"{cable}-{name}", "up")

    def split(self) -> None:
        """Clients, servers and router reach both boxes, but the boxes not each other."""
        self.cut("b", "hb")
        self._isolate("on")

    def heal(self) -> None:
        self._isolate("off")
        self.mend("b", "hb")

    def _isolate(self, word: str) -> None:
        for name in BOXES:
            self.ip("sw", "link", "set", "dev", f"lan-{name}", "type", "bridge_slave", "isolated", word)

    def addresses(self, name: str) -> set[str]:
        """All IPv4 addresses in a namespace."""
        links = json.loads(self.ip(name, "-j", "-4", "address", "show"))
        return {one["local"] for link in links for one in link.get("addr_info", ()) if one}

    def add_addresses(self, name: str, addresses: Sequence[str]) -> None:
        commands = "".join(f"address add {address} dev eth0\n" for address in addresses)
        words = ["ip", "-n", self.ns(name), "-batch", "-"]
        subprocess.run(words, input=commands, text=True, check=True, capture_output=True)

    def holds(self, name: str) -> bool:
        return VIP in self.addresses(name)

    # --- boxes ------------------------------------------------------------------

    def config(self) -> str:
        reals = [
            {"label": f"Server {number}", "id": str(UUID(int=number)), "address": address, "port": PORT}
            for number, address in enumerate(SERVERS, 1)
        ]
        check = {"type": "connect", "interval": "500ms", "timeout": "400ms", "rise": 1, "fall": 2}
        service = virtual_service(PORT, reals, address=VIP, health_check=check, id=str(UUID(int=100)), **self.service)
        settings = {"interval": "100ms", "missed": 3, **self.settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        return "workers = 2\n[ha]\n" + "\n".join(lines) + "\n" + render_toml({"virtual_service": [service]})

    def box(self, name: str, config: str | None = None, through: Sequence[str] = ()) -> Lbfast:
        """A box that is not started yet; ``through``: the words of a program that runs this one."""
        directory = self.directory / name
        (directory / "state").mkdir(parents=True, exist_ok=True)
        prefix = [*self.inside(name), *(through or self.through)]
        found = Lbfast(config or self.config(), directory=directory, prefix=prefix, allow_stderr=True)
        self.boxes[name] = found
        return found

    def start(self, *names: str, config: str | None = None) -> None:
        """Start boxes and wait until they are ready."""
        for name in names:
            self.box(name, config).start()
        for name in names:
            self.boxes[name].wait_ready()

    def start_pair(self, a: str | None = None, b: str | None = None) -> None:
        """Start both boxes, with these configurations; the primary is the active one, however slowly it starts."""
        self.start("a", config=a)
        self.wait_holder("a")
        self.start("b", config=b)

    def write_pair(self) -> None:
        """The files that pairing would leave."""
        from lbfast.ha.link import CERTIFICATE, PEER_CERTIFICATE, ensure_identity, own_fingerprint

        for name in BOXES:
            (self.directory / name / "state").mkdir(parents=True, exist_ok=True)
            ensure_identity(self.directory / name / "state", name)
        for name, role in (("a", "primary"), ("b", "secondary")):
            other = "b" if name == "a" else "a"
            state, others = self.directory / name / "state", self.directory / other / "state"
            (state / PEER_CERTIFICATE).write_text((others / CERTIFICATE).read_text())
            document = {
                "id": "lab",
                "role": role,
                "local": BOXES[name],
                "peer": BOXES[other],
                "key": KEY,
                "peer_fingerprint": own_fingerprint(others),
                "paths": [[CABLE[name], CABLE[other]]],
                "peer_name": other,
            }
            (state / "pair.json").write_text(json.dumps(document))

    def status(self, name: str) -> dict[str, Any]:
        """What its ha process says."""
        return self.verb(name, "status")

    def paths(self, name: str) -> list[dict[str, Any]]:
        """As a box sees them: LAN, second cable; not what goes by way of the router."""
        return [path for path in self.status(name)["paths"] if not path["via"]]

    def verb(self, name: str, verb: str) -> dict[str, Any]:
        """Ask its ha process directly."""
        path = self.boxes[name].runtime_dir / "ha.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(scaled(10))
            sock.connect(str(path))
            sock.sendall(json.dumps({"verb": verb}).encode() + b"\n")
            with sock.makefile() as file:
                answer = json.loads(file.readline())
        assert answer["ok"], answer
        return dict(answer["result"])

    def wait_holder(self, name: str, timeout: float = 20.0) -> None:
        wait_for(lambda: self.state(name) in ("active", "alone"), timeout, f"{name} to be active")

    def state(self, name: str) -> str:
        try:
            return str(self.status(name)["state"])
        except (OSError, ValueError):
            return "gone"

    def wait_states(self, timeout: float = 15.0, **states: str) -> None:
        """Until each named box says that state."""
        wait_for(
            lambda: all(self.state(name) == word for name, word in states.items()),
            timeout,
            f"{states}; now { ({name: self.state(name) for name in states}) }",
        )

    def take_over(self, name: str, *more: str) -> None:
        """Order it.  What is refused for a moment's reason, as heartbeats that were late, is ordered again."""
        said = [""]

        def is_done() -> bool:
            code, _, said[0] = self.boxes[name].cli("ha", "takeover", *more)
            return code == 0

        try:
            wait_for(is_done, 30, f"{name} to take over")
        except AssertionError as error:
            error.add_note(said[0])
            raise

    def told(self, name: str) -> list[str]:
        """All events for people on a box so far; those of a moment ago are still on their way."""
        events = self.boxes[name].call("events", limit=1000, connections=False)["events"]
        return [str(event.get("message", "")) for event in events]

    def wait_told(self, name: str, words: str, timeout: float = 20.0) -> str:
        """The first event there that says so."""
        found = wait_for(lambda: [it for it in self.told(name) if words in it], timeout, f"{name} to say {words!r}")
        return found[0]

    def has_one_history(self) -> bool:
        """Both boxes have the same versions."""
        ours, theirs = (self.boxes[name].call("history")["versions"] for name in BOXES)
        return bool(ours == theirs)

    def wait_one_history(self, timeout: float = 20.0) -> None:
        """A passive box has its own first version until the active one's comes."""
        wait_for(self.has_one_history, timeout, "one history")

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Until both boxes say that a takeover would be safe."""

        seen: dict[str, Any] = {}

        def ready() -> bool:
            try:
                seen.update({name: self.status(name) for name in ("a", "b")})
            except (OSError, ValueError):
                return False
            return all(status["ready"] for status in seen.values())

        try:
            wait_for(ready, timeout, "both boxes to be ready")
        except AssertionError as error:
            error.add_note(json.dumps(seen, indent=1))
            raise

    def signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def kill_box(self, name: str) -> None:
        """Power loss: the plugs out, and every process gone, in one moment."""
        for cable in ("lan", "hb"):
            self.cut(name, cable)
        self.kill_processes(name)

    def kill_processes(self, name: str) -> None:
        """Every process of a box, in one moment; its kernel lives on."""
        box = self.boxes[name]
        for pid in [box.pid, *processes_of_session(box.pid)]:
            self.signal(pid, signal.SIGKILL)

    def stop_box(self, name: str) -> None:
        """A clean stop begins."""
        self.boxes[name].process.send_signal(signal.SIGTERM)

    def wait_stopped(self, name: str) -> None:
        self.boxes[name].wait()

    def hang(self, name: str) -> None:
        """All workers stand still."""
        for child, pid in children_of(self.boxes[name].pid).items():
            if "worker" in child:
                self.signal(pid, signal.SIGSTOP)

    def deafen(self, name: str) -> None:
        """No heartbeat is heard there, over any path."""
        self.nft(name, heartbeats("drop"))

    def revive(self, name: str) -> None:
        """Power is back: a machine without any service address, which starts lbfast."""
        self.boxes[name].clean_up()
        self.ip(name, "address", "flush", "dev", "eth0")
        self.ip(name, "address", "add", f"{BOXES[name]}/16", "dev", "eth0")
        self.ip(name, "route", "add", "default", "via", ROUTER)
        for cable in ("lan", "hb"):
            self.mend(name, cable)

    # --- servers and clients ------------------------------------------------------

    def serve(self, ca: trustme.CA) -> None:
        """Three TLS servers."""
        pem = self.directory / "server.pem"
        ca.issue_cert("symphony.test").private_key_and_cert_chain_pem.write_to_path(pem)
        ca.cert_pem.write_to_path(self.directory / "ca.pem")
        self.run("s", "ha_servers.py", str(pem), str(PORT), *SERVERS)

    def clients(self, count: int, every: float = 0.02, held: int = 0) -> Clients:
        """Clients that go on until they are asked for their report."""
        words = [str(self.directory / "ca.pem"), VIP, str(PORT), str(count), str(every), str(held)]
        return Clients(self.run("c", "ha_clients.py", *words))

    def run(self, name: str, *words: str) -> subprocess.Popen[str]:
        """A Python program of this directory, in a namespace; it says READY when it is."""
        process = subprocess.Popen(
            [*self.inside(name), sys.executable, *words],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=HERE,
        )
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("READY"), f"{words}: {line!r}"
        return process

    def close(self) -> None:
        for box in self.boxes.values():
            box.clean_up()
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stdin):
                if stream is not None:
                    stream.close()


@dataclass
class Report:
    """What clients have noted."""

    notes: dict[str, Any]

    def outage(self, at: float) -> float:
        """Seconds from a moment until any client was served by a connection begun after it."""
        return min(self.outages(at))

    def outages(self, at: float) -> list[float]:
        """The same for each client."""
        return [
            min((done for begun, done, _ in client["served"] if begun >= at), default=float("inf")) - at
            for client in self.notes["clients"].values()
        ]

    def waits(self, at: float) -> list[float]:
        """The longest that each client waited for service, of what it tried at or after a moment."""
        return [_longest_wait(client, at) for client in self.notes["clients"].values()]

    def moved(self, servers: Sequence[int] = (1, 2, 3)) -> int:
        """Clients that were served by more than one of the living servers."""
        return sum(
            len({number for _, _, number in client["served"]} & set(servers)) > 1
            for client in self.notes["clients"].values()
        )

    def moves(self) -> list[tuple[float, int, int]]:
        """Each answer of another server than the one before: when it had been asked for, from which server to which."""
        rows = [client["served"] for client in self.notes["clients"].values()]
        steps = [(after[0], before[2], after[2]) for served in rows for before, after in pairwise(served)]
        return sorted(step for step in steps if step[1] != step[2])

    def cut(self) -> int:
        return len(self.notes["cut"])


def _longest_wait(client: dict[str, Any], at: float) -> float:
    """A row of tries that fail and the one that does not are one wait."""
    tries = sorted(
        (begun, done, outcome == "served")
        for outcome in ("served", "failed")
        for begun, done, _ in client[outcome]
        if done >= at
    )
    longest, since = 0.0, None
    for begun, done, is_served in tries:
        since = max(at, begun) if since is None else since
        if is_served:
            longest, since = max(longest, done - since), None
    if not any(is_served for _, _, is_served in tries):
        return float("inf")
    return longest if since is None else max(longest, tries[-1][1] - since)


@dataclass
class Clients:
    """The process that they live in."""

    process: subprocess.Popen[str]

    def report_after(self, at: float, count: int) -> Report:
        """Go on until every client was served by a connection begun after ``at``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"until {at} {count}\n")
        return self.report()

    def report(self) -> Report:
        return Report(report_of(self.process))


AnyLab = TypeVar("AnyLab", bound=Lab)


@contextmanager
def lab(prefix: str, clients: int = 1, kind: type[AnyLab] = Lab, **settings: Any) -> Iterator[AnyLab]:
    """Namespaces, cables and addresses; nothing runs yet.  All of it goes at the end."""
    directory = Path(tempfile.mkdtemp(prefix="lbfast-ha-"))
    found = kind(f"{prefix}{os.getpid()}", directory, **settings)
    names = ("sw", "c", "a", "b", "s", "r")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for name in names:
            stack.callback(subprocess.run, ["ip", "netns", "delete", found.ns(name)], check=False, capture_output=True)
            ip("netns", "add", found.ns(name))
            found.ip(name, "link", "set", "lo", "up")
        stack.callback(found.close)
        for bridge in ("lan", "hb"):
            found.ip("sw", "link", "add", bridge, "type", "bridge")
            found.ip("sw", "link", "set", bridge, "up")
        _plug(found, "c", "lan", [f"10.77.1.{number}/16" for number in range(1, clients + 1)])
        _plug(found, "s", "lan", [f"{address}/16" for address in SERVERS])
        _plug(found, "r", "lan", [f"{ROUTER}/16"])
        for name in BOXES:
            _plug(found, name, "lan", [f"{BOXES[name]}/16"])
            _plug(found, name, "hb", [f"{CABLE[name]}/24"])
            found.ip(name, "route", "add", "default", "via", ROUTER)
        yield found


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What clients have noted, once their end is asked for."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    notes = json.loads(process.stdout.readline())
    process.wait(scaled(10))
    process.stdin.close()
    process.stdout.close()
    return dict(notes)


@contextmanager
def served_pair(prefix: str, ca: trustme.CA, **settings: Any) -> Iterator[Lab]:
    """Boxes that know each other, none started yet, and real servers; whoever runs at the end is stopped."""
    with lab(prefix, **settings) as found:
        found.write_pair()
        found.serve(ca)
        yield found
        for box in found.boxes.values():
            if box.process.poll() is None:
                box.stop()


@contextmanager
def running_pair(
    prefix: str, ca: trustme.CA, config: Callable[[Lab], str] = Lab.config, **settings: Any
) -> Iterator[Lab]:
    """Both boxes paired and started, and real servers: what the tests of a module share.  It leaves nothing behind."""
    with served_pair(prefix, ca, **settings) as found:
        before = set(children_of(os.getpid()).values())
        found.start_pair(config(found), config(found))
        yield found
    assert set(children_of(os.getpid()).values()) <= before


def _plug(found: Lab, name: str, cable: str, addresses: Sequence[str]) -> None:
    interface = "eth0" if cable == "lan" else "eth1"
    port = f"{cable}-{name}"
    found.ip("sw", "link", "add", port, "type", "veth", "peer", "name", interface, "netns", found.ns(name))
    found.ip("sw", "link", "set", port, "master", cable, "up")
    commands = "".join(f"address add {address} dev {interface}\n" for address in addresses)
    commands += f"link set {interface} up\n"
    subprocess.run(
        ["ip", "-n", found.ns(name), "-batch", "-"], input=commands, text=True, check=True, capture_output=True
    )
