"""A connect that fails: refused, unreachable, timed out; the next real server, the table, the fallback server."""

from __future__ import annotations

import errno
import select
import time
from contextlib import ExitStack

import pytest
from data_plane import BlackHole, DataPlane, RealPort
from servers import DeafPort, echo_server
from waiting import wait_for

from lbfast.model.state import Ended, EventKind, Health, Reason


@pytest.fixture
def deaf():  # type: ignore[no-untyped-def]
    port = DeafPort()
    yield port
    port.stop()


def test_refused_goes_to_the_next_at_once_and_the_pending_entry_with_it(deaf: DeafPort) -> None:
    with RealPort() as real, DataPlane([deaf, real]) as plane:
        took = {}
        for number in range(1, 9):
            source = f"127.0.0.{10 + number}"
            started = time.monotonic()
            _client, _server = plane.pair(source)
            took[source] = time.monotonic() - started
            entry = plane.stick.get(source)
            assert (entry["real"], entry["state"], entry["holds"]) == (1, "bound", 1)
        failed = plane.wait_events(4, kind=EventKind.CONNECT_FAIL)
        assert {(e["real"], e["errno"], e["attempts"]) for e in failed} == {(0, errno.ECONNREFUSED, 1)}
        opened = [e for e in plane.read_events() if e["kind"] == EventKind.OPEN]
        moved = [e for e in opened if e["attempts"] == 2]
        assert len(moved) == len(failed)
        assert {(e["real"], e["reason"], e["previous"]) for e in moved} == {(1, Reason.REDISPATCH, 0)}
        assert min(took[e["client"]] for e in moved) < 0.5  # a pause would cost each of them a second
        assert plane.counters.real(0)["connect_failures"] == len(failed)
        assert plane.table.failures(0)[0] == len(failed)
        assert plane.table.failures(0)[2] == errno.ECONNREFUSED
        assert select.select([plane.health_wake], [], [], 0)[0], "health is not woken"


def test_a_detour_is_not_stored_while_the_old_server_counts_as_up() -> None:
    with RealPort() as first, RealPort() as second, DataPlane([first, second]) as plane:
        client, _server = plane.pair("127.0.0.9")
        home = plane.stick.get("127.0.0.9")["real"]
        port = (first, second)[home].port
        (first, second)[home].stop()
        client.close()
        other = (second, first)[home]
        with plane.connect("127.0.0.9"):
            detour = other.accept()
            (event,) = plane.wait_events(kind=EventKind.OPEN, real=1 - home)
            assert (event["reason"], event["previous"]) == (Reason.REDISPATCH, home)
            assert plane.stick.get("127.0.0.9")["real"] == home
            detour.close()
        with RealPort(port=port) as back:  # the old server is there again: the client returns to it
            plane.connect("127.0.0.9")
            back.accept()
            plane.close_clients()


def test_a_dead_server_loses_its_clients_for_good() -> None:
    """Once failures in a row have taken it out, the move is stored: `down`."""
    with RealPort() as first, RealPort() as second, DataPlane([first, second], passive_fall=2) as plane:
        plane.pair("127.0.0.9")
        home = plane.stick.get("127.0.0.9")["real"]
        (first, second)[home].stop()
        other = (second, first)[home]
        for _ in range(3):
            plane.connect("127.0.0.9")
            other.accept()
        (event,) = plane.wait_events(kind=EventKind.OPEN, reason=Reason.DOWN)
        assert (event["attempts"], event["previous"]) == (2, home)
        entry = plane.stick.get("127.0.0.9")
        assert (entry["real"], entry["previous"], entry["previous_reason"]) == (1 - home, home, Reason.DOWN)
        assert plane.counters.real(home)["connect_failures"] == 2


def test_without_redispatch_the_same_server_is_tried_again(deaf: DeafPort) -> None:
    with RealPort() as real, DataPlane([deaf, real], redispatch=False, retries=1, scheduler=1) as plane:
        for number in range(2):
            plane.connect(f"127.0.0.{20 + number}")
        real.accept()  # the other one
        (refused,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (refused["attempts"], refused["ended"], refused["real"]) == (2, Ended.CONNECT, 0)
        assert refused["duration_ms"] >= 1_000  # with a pause between the two


@pytest.mark.parametrize("with_fallback", [False, True])
def test_all_refuse(with_fallback: bool, deaf: DeafPort) -> None:
    """Fast RST, or the fallback server, and nothing is stored for the client."""
    with ExitStack() as stack:
        other = DeafPort()
        stack.callback(other.stop)
        fallback = stack.enter_context(RealPort()) if with_fallback else None
        plane = stack.enter_context(DataPlane([deaf, other], fallback=fallback, retries=1))
        if fallback:
            client = plane.connect("127.0.0.9")
            fallback.accept().sendall(b"sorry")
            assert client.recv(5) == b"sorry"
            (event,) = plane.wait_events(kind=EventKind.OPEN)
            assert (event["reason"], event["attempts"], event["real"]) == (Reason.FALLBACK, 3, 2)
        else:
            for host in (9, 10, 11):
                assert plane.is_refused(f"127.0.0.{host}")
            events = plane.wait_events(3, kind=EventKind.REFUSE)
            refusals = [(e["ended"], e["attempts"], e["errno"]) for e in events]
            assert refusals == [(Ended.CONNECT, 2, errno.ECONNREFUSED)] * 3
            assert min(e["duration_ms"] for e in events) < 500  # a pause would cost each of them a second
            assert plane.counters.service(0)["refused"] == 3
        plane.close_clients()
        wait_for(lambda: plane.connections == 0)
        assert not list(plane.stick.entries())


def test_a_failing_fallback_server_is_the_end(deaf: DeafPort) -> None:
    """Whoever a limit sent to the fallback server may not slip past the limit when it fails."""
    with RealPort() as real, DataPlane([real], fallback=deaf, max_connections=1, at_limit=2) as plane:
        plane.pair("127.0.0.9")
        assert plane.is_refused("127.0.0.10")
        assert not real.is_called()
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert (event["ended"], event["reason"], event["attempts"]) == (Ended.CONNECT, Reason.FALLBACK, 1)


def test_a_black_hole_costs_the_timeout_then_the_next() -> None:
    with BlackHole() as hole, RealPort() as real, DataPlane([hole, real], connect_timeout_ms=200, scheduler=1) as plane:
        started = time.monotonic()
        plane.connect("127.0.0.9")  # the first turn is the hole's
        real.accept()
        assert time.monotonic() - started >= 0.19
        (failed,) = plane.wait_events(kind=EventKind.CONNECT_FAIL)
        assert (failed["errno"], failed["real"]) == (errno.ETIMEDOUT, 0)
        (moved,) = plane.wait_events(kind=EventKind.OPEN, reason=Reason.REDISPATCH)
        assert (moved["real"], moved["previous"], moved["attempts"]) == (1, 0, 2)


def test_a_black_hole_is_learned_by_all() -> None:
    """One failure in a row is enough where the operator says so: the next clients do not wait."""
    with BlackHole() as hole, echo_server() as real:
        with DataPlane([hole, real], workers=2, connect_timeout_ms=300, scheduler=1, passive_fall=1) as plane:
            first = [plane.connect(f"127.0.1.{n}") for n in range(1, 3)]
            plane.wait_events(kind=EventKind.CONNECT_FAIL)
            for client in first:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            started = time.monotonic()
            for number in range(20):
                client = plane.connect(f"127.0.2.{number + 1}")
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            assert time.monotonic() - started < 0.3 * 20
            assert len([e for e in plane.read_events() if e["kind"] == EventKind.CONNECT_FAIL]) <= 2


def test_an_unreachable_server() -> None:
    """connect itself says so: no socket event, no wait."""

    class Nowhere:
        address = "255.255.255.255"  # no route leads there for TCP
        port = 9

    with RealPort() as real, DataPlane([Nowhere(), real], scheduler=1) as plane:
        plane.connect("127.0.0.9")
        plane.connect("127.0.0.10")
        real.accept()
        real.accept()
        failed = plane.wait_events(kind=EventKind.CONNECT_FAIL)[0]
        assert failed["errno"] in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)


def test_port_left_out_is_the_one_the_client_came_to() -> None:
    """A real server without a port of its own listens on the service's, on another address."""
    with RealPort("127.0.0.2") as real, DataPlane([real]) as plane:
        with RealPort("127.0.0.3", plane.port) as same:
            plane.change_real(0, address="127.0.0.3", port=0)
            client = plane.connect()
            same.accept().sendall(b"here")
            assert client.recv(4) == b"here"
            client.close()
            same.close_accepted()


@pytest.mark.parametrize(("service", "server"), [("::1", "::1"), ("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_ipv6_and_mixed(service: str, server: str) -> None:
    with RealPort(server) as real, DataPlane([real], address=service) as plane:
        client, partner = plane.pair()
        client.sendall(b"six")
        assert partner.recv(3) == b"six"
        assert plane.stick.get(service)["holds"] == 1
        assert plane.wait_events(kind=EventKind.OPEN)[0]["client"] == service


def test_drain_and_halt_between_two_attempts(deaf: DeafPort) -> None:
    """What changes while a connection waits for its next attempt is seen by that attempt's choice."""
    with RealPort() as real, DataPlane([deaf], retries=2) as plane:
        client = plane.connect("127.0.0.9")
        plane.wait_events(kind=EventKind.CONNECT_FAIL)
        plane.table.set_health(0, Health.DOWN, "gone")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        (event,) = plane.wait_events(kind=EventKind.REFUSE)
        assert event["ended"] == Ended.CONNECT
        assert not real.is_called()


def test_a_server_halted_between_two_attempts_cuts_the_connection(deaf: DeafPort) -> None:
    with DataPlane([deaf]) as plane:
        client = plane.connect("127.0.0.9")
        plane.wait_events(kind=EventKind.CONNECT_FAIL)
        plane.table.set_admin(0, 2)
        plane.table.cut(0)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert plane.wait_events(kind=EventKind.REFUSE)[0]["ended"] in (Ended.HALT, Ended.NO_SERVER, Ended.CONNECT)


def test_nobody_up_is_refused_at_once() -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        plane.table.set_health(0, Health.DOWN, "down")
        assert plane.is_refused()
        assert plane.wait_events(kind=EventKind.REFUSE)[0]["ended"] == Ended.NO_SERVER
