"""A pair that knows nothing of IPv4: heartbeats, replication and the service address over IPv6."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address

import pytest
import trustme
from ha_lab import PATIENT, PORT, SERVERS, Lab, lab, report_of
from harness import wait_for
from namespaces import inside

from lbfast.ha.fitness import CUT_OFF

pytestmark = pytest.mark.root

SERVICE = "fd77::100"
SERVERS6 = ("fd77::21", "fd77::22", "fd77::23")
COUNTS = (20, 5, 5)  # talking, idle, half-closed
TARGET = f"@th,64,128 0x{IPv6Address(SERVICE).packed.hex()}"
LOSING = f"""
add table inet lost
add chain inet lost c {{ type filter hook input priority 0; policy accept; }}
add rule inet lost c icmpv6 type nd-neighbor-advert {TARGET} quota until {5 * 72} bytes drop
"""
OWN = {"a": "fd77::11", "b": "fd77::12"}
SECOND_PATH = {"a": "fd78::11", "b": "fd78::12"}


@dataclass
class Lab6(Lab):
    """The service address of the laboratory is of the new kind."""

    def config(self) -> str:
        return super().config().replace("10.77.0.100", SERVICE)


@dataclass
class Moving6(Lab6):
    """... and so are the real servers, because they see the service address as their client."""

    def config(self) -> str:
        text = super().config().replace(f"port = {PORT}\n", "")
        for old, new in zip(SERVERS, SERVERS6, strict=True):
            text = text.replace(old, new)
        return text


@contextmanager
def paired(ca: trustme.CA, kind: type[Lab] = Lab6) -> Iterator[Lab]:
    """Boxes that know each other over IPv6, none started yet; whoever runs at the end is stopped."""
    is_moving = kind is Moving6
    service = {"source_address": "vip", "ports": f"{PORT},{PORT + 1}"} if is_moving else {}
    with lab("h6", kind=kind, service=service, through=PATIENT if is_moving else ()) as found:
        found.ip("c", "address", "add", "fd77::1:1/64", "dev", "eth0", "nodad")
        for name in OWN:
            found.ip(name, "address", "add", f"{OWN[name]}/64", "dev", "eth0", "nodad")
            found.ip(name, "address", "add", f"{SECOND_PATH[name]}/64", "dev", "eth1", "nodad")
        found.write_pair()
        for name, other in (("a", "b"), ("b", "a")):
            path = found.directory / name / "state" / "pair.json"
            document = json.loads(path.read_text())
            document |= {"local": OWN[name], "peer": OWN[other], "paths": [[SECOND_PATH[name], SECOND_PATH[other]]]}
            path.write_text(json.dumps(document))
        found.serve(ca)
        if is_moving:
            for address in SERVERS6:
                found.ip("s", "address", "add", f"{address}/64", "dev", "eth0", "nodad")
            found.run("s", "ha_servers.py", str(found.directory / "server.pem"), str(PORT), *SERVERS6)
            found.run("s", "conn_servers.py", str(PORT + 1), *SERVERS6)
        yield found
        for box in found.boxes.values():
            if box.process.poll() is None:
                box.stop()


@pytest.fixture(params=[Lab6])
def pair(ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with paired(ca, request.param) as found:
        found.start_pair()
        yield found


def answers(pair: Lab) -> bool:
    with inside(pair.ns("c")):
        sock = socket.socket(socket.AF_INET6)
    with sock:
        sock.settimeout(1)
        try:
            sock.connect((SERVICE, 443))
        except OSError:
            return False
        return True


def holds(pair: Lab, name: str) -> bool:
    return SERVICE in pair.ip(name, "-6", "address", "show", "dev", "eth0")


def test_a_pair_over_ipv6_alone(pair: Lab) -> None:
    pair.wait_ready()
    pair.wait_states(a="active", b="passive")
    wait_for(lambda: [path["heard"] for path in pair.paths("a")] == [True, True], 10, "both paths")
    assert pair.status("b")["replication"]["synced"]
    assert (holds(pair, "a"), holds(pair, "b")) == (True, False)
    wait_for(lambda: answers(pair), 10, "the service over IPv6")
    pair.kill_box("a")
    pair.wait_states(b="alone")
    assert holds(pair, "b")
    wait_for(lambda: answers(pair), 10, "the neighbours to learn the other box's MAC")


def test_two_that_never_hear_each_other_do_not_both_take_the_address(ca: trustme.CA) -> None:
    """The switch comes to life before both at once: both ask for the address, and the secondary makes way.

    The first answers of whoever takes it are lost, so the question alone can tell the other one in time.
    """
    with paired(ca) as pair:
        for name in OWN:
            pair.deafen(name)
            pair.nft(name, LOSING)
            pair.cut(name)
        pair.start(*OWN)
        wait_for(lambda: [pair.status(name)["level"] for name in OWN] == [CUT_OFF] * 2, 20, "both to miss the switch")
        pair.ip("sw", "link", "set", "lan", "down")
        for name in OWN:
            pair.mend(name)
        pair.ip("sw", "link", "set", "lan", "up")
        wait_for(lambda: any(holds(pair, name) for name in OWN), 30, "a box to take the address")
        # Whoever takes it as well has asked at the same time, so it would have it by now.
        wait_for(lambda: any(settled(pair, name) for name in OWN), 20, "a while")
        assert [holds(pair, name) for name in OWN] in ([True, False], [False, True])
        wait_for(lambda: answers(pair), 10, "the service over IPv6")


def settled(pair: Lab, name: str) -> bool:
    return any(move["ago_ms"] > 2000 for move in pair.status(name)["moves"])


@pytest.mark.parametrize("pair", [Moving6], indirect=True)
def test_connections_change_boxes_over_ipv6(pair: Lab) -> None:
    pair.wait_ready()
    words = (str(pair.directory / "ca.pem"), SERVICE, str(PORT), *map(str, COUNTS))
    process = pair.run("c", "conn_clients.py", *words)
    for taker, giver in (("b", "a"), ("a", "b")):
        pair.take_over(taker)
        pair.wait_states(**{giver: "passive", taker: "active"})
        pair.wait_ready()
        pair.wait_told(taker, f"{sum(COUNTS)} of {sum(COUNTS)} connections taken over")
    notes = report_of(process)
    assert (notes["cut"], notes["damaged"], notes["late"]) == ([], [], sum(COUNTS))
