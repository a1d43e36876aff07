"""Every client on its one server: real TLS clients, real HTTPS servers, two real workers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
from harness import Lbfast, free_port, real_server, virtual_service, wait_for
from servers import DeafPort, connect, named_server, read_line
from tls_world import NAMES, TlsWorld, connect_tls, homes, sources, visit, visit_tls

ONE, TWO, THREE = NAMES
# Nobody stands still for two intervals; a single probe of a health process that did is late, and failed.
QUICK_CHECK = {"type": "connect", "interval": "1s", "timeout": "1s", "rise": 1, "fall": 2, "jitter": 0.0}


@dataclass
class Stage:
    """A running lbfast with the servers behind it."""

    lb: Lbfast
    world: TlsWorld
    ports: dict[str, int]  # of each virtual service

    def visit(self, addresses: list[str], service: str = "Symphony") -> dict[str, str]:
        """Each address once; address -> the server it met."""
        return homes(visit(self.ports[service], self.world.context, addresses))

    def real(self, label: str, service: str = "Symphony") -> dict[str, Any]:
        for found in self.lb.call("overview")["virtual_services"]:
            if found["label"] == service:
                return next(real for real in found["real_servers"] if real["label"] == label)
        raise AssertionError(f"no {service}")

    def wait_state(self, label: str, state: str, service: str = "Symphony") -> None:
        wait_for(lambda: self.real(label, service)["state"] == state, 10, f"{label} to be {state}")


@pytest.fixture(scope="module")
def stage(ca: trustme.CA) -> Iterator[Stage]:
    """One lbfast with a virtual service for each kind of question; the servers stay up."""
    labels = ("Symphony", "Races", "Short", "While", "New", "Pins", "Weights", "Halt", "Clears")
    settings: dict[str, dict[str, Any]] = {
        "Short": {"persistence": {"timeout": "1s"}},
        "While": {"drain_policy": "while_connected"},
        "New": {"drain_policy": "new_choice"},
        "Weights": {"scheduler": "wrr"},
    }
    with TlsWorld(ca) as world:
        ports = {label: free_port() for label in labels}
        services = [world.service(ports[label], label, **settings.get(label, {})) for label in labels]
        with Lbfast({"workers": 2, "virtual_service": services}) as lb:
            yield Stage(lb, world, ports)


def test_sixty_clients_with_five_connections_each_are_never_split(stage: Stage) -> None:
    """First one connection each, then four more at the same time: same server, and all three servers are used."""
    port, context, clients = stage.ports["Symphony"], stage.world.context, sources(60, 1)
    first = homes(visit(port, context, clients))
    assert set(first.values()) == set(NAMES)
    assert homes(visit(port, context, clients * 4)) == first
    shares = Counter(first.values())
    assert max(shares.values()) - min(shares.values()) <= 6, shares
    counted = {real["label"]: real["clients"] for real in _service(stage.lb, "Symphony")["real_servers"]}
    assert counted == shares


def test_simultaneous_first_connections_of_new_clients_are_never_split(stage: Stage) -> None:
    """150 clients that lbfast has never seen open 6 connections at the same moment, over both workers."""
    before = [worker["accepted"] for worker in stage.lb.call("statistics")["workers"]]
    met = homes(visit(stage.ports["Races"], stage.world.context, [it for it in sources(150, 2) for _ in range(6)]))
    assert len(met) == 150
    assert set(met.values()) == set(NAMES)
    after = [worker["accepted"] for worker in stage.lb.call("statistics")["workers"]]
    assert all(new > old for new, old in zip(after, before, strict=True)), "one worker had nothing to do"
    shown = stage.lb.call("persistence_show", service="Races")
    assert {entry["client"]: entry["real"] for entry in shown["entries"]} == met


def test_persistence_outlives_the_connection(stage: Stage) -> None:
    home = stage.visit(["127.0.3.1"])
    _wait_no_connections(stage.lb, "Symphony")
    entry = _entry(stage.lb, "Symphony", "127.0.3.1")
    assert entry["connections"] == 0
    assert 1790 < entry["expires_in"] <= 1800
    assert stage.visit(["127.0.3.1"]) == home


def test_an_entry_is_held_while_connected_and_goes_after_its_timeout(stage: Stage) -> None:
    """A client that left goes after 1 s, one that stays connected does not, however long that takes."""
    port, context = stage.ports["Short"], stage.world.context

    async def run() -> float:
        stays = await connect_tls(port, context, "127.0.4.1")
        home = await stays.ask()
        await visit_tls(port, context, ["127.0.4.2"])
        await asyncio.to_thread(wait_for, lambda: not _entries(stage.lb, "Short", "127.0.4.2"), 10, "its end")
        held = _entry(stage.lb, "Short", "127.0.4.1")
        assert (held["connections"], held["expires_in"]) == (1, None)
        assert held["real"] == home == await stays.ask()
        leaving = time.monotonic()
        await stays.close()
        return leaving

    leaving = asyncio.run(run())
    wait_for(lambda: not _entries(stage.lb, "Short", "127.0.4.1"), 10, "the entry's end")
    assert time.monotonic() - leaving > 0.95, "it went before its timeout"


def test_drained_until_expiry_keeps_known_clients_and_takes_no_new_ones(stage: Stage) -> None:
    known = stage.visit(sources(12, 5))
    of_two = [client for client, name in known.items() if name == TWO]
    assert of_two
    drained = stage.lb.call("drain", service="Symphony", real=TWO, reason="patching")
    assert (drained["admin"], drained["state"]) == ("drain", "drain")
    assert "patching" in drained["reason"]
    assert set(stage.visit(sources(12, 6)).values()) == {ONE, THREE}
    assert stage.visit(list(known)) == known
    said = stage.lb.call("explain", service="Symphony", client=of_two[0])
    assert said["real"] == TWO
    assert any("may return there until its entry expires" in line for line in said["lines"]), said["lines"]
    stage.lb.call("online", service="Symphony", real=TWO)
    assert stage.real(TWO)["state"] == "up"
    assert TWO in stage.visit(sources(12, 7)).values()


def test_drained_while_connected_keeps_a_client_only_as_long_as_it_is_connected(stage: Stage) -> None:
    port, context = stage.ports["While"], stage.world.context

    async def run() -> None:
        stays = await connect_tls(port, context, "127.0.8.1")
        home = await stays.ask()
        stage.lb.call("drain", service="While", real=home)
        again = await visit_tls(port, context, ["127.0.8.1"])
        assert homes(again) == {"127.0.8.1": home}
        await stays.close()
        await asyncio.to_thread(_wait_no_connections, stage.lb, "While")
        assert homes(await visit_tls(port, context, ["127.0.8.1"]))["127.0.8.1"] != home
        _assert_moved(stage.lb, "While", "127.0.8.1", home, "drained")
        stage.lb.call("online", service="While", real=home)

    asyncio.run(run())


def test_drained_with_new_choice_moves_a_client_at_its_next_connection(stage: Stage) -> None:
    port, context = stage.ports["New"], stage.world.context

    async def run() -> None:
        stays = await connect_tls(port, context, "127.0.9.1")
        home = await stays.ask()
        stage.lb.call("drain", service="New", real=home)
        assert await stays.ask() == home, "an open connection was disturbed"
        assert homes(await visit_tls(port, context, ["127.0.9.1"]))["127.0.9.1"] != home
        _assert_moved(stage.lb, "New", "127.0.9.1", home, "drained")
        await stays.close()
        stage.lb.call("online", service="New", real=home)

    asyncio.run(run())


def test_halt_cuts_and_moves_and_says_so(stage: Stage) -> None:
    port, context = stage.ports["Halt"], stage.world.context

    async def run() -> str:
        stays = await connect_tls(port, context, "127.0.10.1")
        home = await stays.ask()
        stage.lb.call("halt", service="Halt", real=home, reason="smoke")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            while True:  # it is cut within 100 ms
                await stays.ask()
        await stays.close()
        assert homes(await visit_tls(port, context, ["127.0.10.1"]))["127.0.10.1"] != home
        return home

    home = asyncio.run(run())
    _assert_moved(stage.lb, "Halt", "127.0.10.1", home, "halted")
    wait_for(lambda: "halt" in _endings(stage.lb, "Halt", "127.0.10.1"), 5, "the close record of the cut")
    assert stage.real(home, "Halt")["connections"] == 0
    stage.lb.call("online", service="Halt", real=home)


def test_a_pinned_client_goes_where_it_was_pinned_until_cleared(stage: Stage) -> None:
    home = stage.visit(["127.0.11.1"], "Pins")["127.0.11.1"]
    other = next(name for name in NAMES if name != home)
    entry = stage.lb.call("persistence_pin", service="Pins", client="127.0.11.1", real=other)
    assert (entry["real"], entry["pinned"], entry["expires_in"]) == (other, True, None)
    assert stage.visit(["127.0.11.1"], "Pins") == {"127.0.11.1": other}
    said = stage.lb.call("explain", service="Pins", client="127.0.11.1")
    assert (said["reason"], said["pinned"], said["real"]) == ("pinned", True, other)
    _wait_no_connections(stage.lb, "Pins")
    assert stage.lb.call("persistence_clear", service="Pins", client="127.0.11.1") == {"removed": 1}
    assert stage.lb.call("explain", service="Pins", client="127.0.11.1")["real"] is None


def test_entries_are_shown_and_cleared_by_network_and_by_server(stage: Stage) -> None:
    known = stage.visit(sources(9, 12) + sources(3, 13), "Clears")
    shown = stage.lb.call("persistence_show", service="Clears", client="127.0.12.0/24")
    assert {entry["client"] for entry in shown["entries"]} == set(sources(9, 12))
    assert shown["count"] == 9
    code, out, _ = stage.lb.cli("persistence", "show", "Clears", "--client", "127.0.13.0/24", "--json")
    assert code == 0
    assert out.count('"client"') == 3
    at_one = sum(name == ONE for name in known.values())
    assert stage.lb.json("persistence", "clear", "Clears", "--real", ONE) == {"removed": at_one}
    left = {client for client, name in known.items() if name != ONE}
    shown = stage.lb.call("persistence_show", service="Clears")
    assert {entry["client"] for entry in shown["entries"]} == left
    in_network = {client for client in left if client.startswith("127.0.12.")}
    removed = stage.lb.json("persistence", "clear", "Clears", "--client", "127.0.12.0/24")
    assert removed == {"removed": len(in_network)}
    assert stage.lb.call("persistence_clear", service="Clears") == {"removed": len(left - in_network)}
    assert stage.lb.call("persistence_show", service="Clears")["count"] == 0


def test_weights_share_out_new_clients(stage: Stage) -> None:
    """0 takes nobody new and known clients all the same; the rest share by weight."""
    known = stage.visit(sources(9, 14), "Weights")
    for label, weight in ((ONE, 0), (TWO, 50), (THREE, 150)):
        assert stage.lb.call("weight", service="Weights", real=label, weight=weight)["weight"] == weight
    shares = Counter(stage.visit(sources(80, 15), "Weights").values())
    assert set(shares) == {TWO, THREE}
    assert 15 <= shares[TWO] <= 25, shares
    assert stage.visit(list(known), "Weights") == known


def test_a_killed_server_loses_its_clients_to_the_others_and_explain_says_why(ca: trustme.CA) -> None:
    with TlsWorld(ca) as world:
        port = free_port()
        service = world.service(port, health_check=QUICK_CHECK, retries=3)
        with Lbfast({"workers": 2, "virtual_service": [service]}) as lb:
            stage = Stage(lb, world, {"Symphony": port})
            known = stage.visit(sources(15, 20))
            lost = [client for client, name in known.items() if name == THREE]
            assert lost
            world.kill(THREE)
            # At once, whatever the probes know by now: nobody of its clients is refused.
            assert set(stage.visit(lost).values()) <= {ONE, TWO}
            stage.wait_state(THREE, "down")
            moved = stage.visit(lost)
            assert stage.visit(lost) == moved, "moved clients wander"
            assert {client: known[client] for client in known if client not in lost} == stage.visit(
                [client for client in known if client not in lost]
            )
            for client in lost:
                _assert_moved(lb, "Symphony", client, THREE, "down", "redispatch")
            world.revive(THREE)
            stage.wait_state(THREE, "up")
            assert stage.visit(lost) == moved, "a moved client was pulled back"
            assert THREE in stage.visit(sources(15, 21)).values()


def test_the_fallback_server_takes_over_and_is_never_stored() -> None:
    dead, port = DeafPort(), free_port()
    with named_server("sorry") as sorry, named_server("one") as one:
        service = virtual_service(
            port,
            [real_server("One", one.port), real_server("Dead", dead.port)],
            fallback_server={"address": "127.0.0.1", "port": sorry.port},
        )
        with Lbfast({"workers": 2, "virtual_service": [service]}) as lb:
            lb.call("drain", service="Symphony", real="One")
            lb.call("halt", service="Symphony", real="Dead")
            with connect(port, source="127.0.22.1") as sock:
                assert read_line(sock) == b"sorry\n"
                assert lb.call("persistence_show", service="Symphony")["count"] == 0
                live = lb.call("connections", service="Symphony")["connections"]
                assert [(it["real"], it["reason"]) for it in live] == [("fallback", "fallback")]
            lb.call("online", service="Symphony", real="One")
            with connect(port, source="127.0.22.1") as sock:
                assert read_line(sock) == b"one\n"
    dead.stop()


def _service(lb: Lbfast, label: str) -> dict[str, Any]:
    return next(it for it in lb.call("overview")["virtual_services"] if it["label"] == label)


def _entries(lb: Lbfast, service: str, client: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = lb.call("persistence_show", service=service, client=client)["entries"]
    return entries


def _entry(lb: Lbfast, service: str, client: str) -> dict[str, Any]:
    entries = _entries(lb, service, client)
    assert len(entries) == 1, entries
    return entries[0]


def _wait_no_connections(lb: Lbfast, service: str) -> None:
    wait_for(lambda: _service(lb, service)["connections"] == 0, 10, f"all connections of {service} to end")


def _endings(lb: Lbfast, service: str, client: str) -> list[str]:
    events = lb.call("events", limit=1000)["events"]
    return [it["ended"] for it in events if it.get("client") == client and it.get("ended") and it["service"] == service]


def _assert_moved(lb: Lbfast, service: str, client: str, previous: str, *reasons: str) -> None:
    said = lb.call("explain", service=service, client=client)
    assert (said["previous"], said["reason"] in reasons) == (previous, True), said
    assert said["previous_reason"] in reasons, said
    assert any(line.startswith(f"Before, it was on {previous}; it left that one because") for line in said["lines"])
