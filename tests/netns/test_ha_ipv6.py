"""A pair that knows nothing of IPv4: heartbeats, replication and the service address over IPv6."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import trustme
from ha_lab import Lab, lab
from harness import wait_for
from namespaces import inside

pytestmark = pytest.mark.root

SERVICE = "fd77::100"
OWN = {"a": "fd77::11", "b": "fd77::12"}
SECOND_PATH = {"a": "fd78::11", "b": "fd78::12"}


@dataclass
class Lab6(Lab):
    """The service address of the laboratory is of the new kind."""

    def config(self) -> str:
        return super().config().replace("10.77.0.100", SERVICE)


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    with lab("h6", kind=Lab6) as found:
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
        found.start("a", "b")
        yield found
        for box in found.boxes.values():
            if box.process.poll() is None:
                box.stop()


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
    assert (pair.state("a"), pair.state("b")) == ("active", "passive")
    assert [path["heard"] for path in pair.status("a")["paths"]] == [True, True]
    assert pair.status("b")["replication"]["synced"]
    assert (holds(pair, "a"), holds(pair, "b")) == (True, False)
    wait_for(lambda: answers(pair), 10, "the service over IPv6")
    pair.kill_box("a")
    pair.wait_states(b="alone")
    assert holds(pair, "b")
    wait_for(lambda: answers(pair), 10, "the neighbours to learn the other box's MAC")
