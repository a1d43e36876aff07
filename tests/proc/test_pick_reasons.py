"""Every reason of a choice, in the event ring and in the table; drains, halts, cuts, expiry."""

from __future__ import annotations

import os
import signal

import pytest
from data_plane import BlackHole, DataPlane, RealPort
from servers import read_all, silent_server
from waiting import freeze, wait_for

from lbfast._shm import now_ms
from lbfast._stick import StickTable
from lbfast.model.state import Admin, DrainPolicy, Ended, EventKind, Health, Reason

CLIENT = "127.0.0.9"


def open_one(plane: DataPlane, source: str = CLIENT):  # type: ignore[no-untyped-def]
    """A connection that got through: (client, server, its open event)."""
    client, server = plane.pair(source)
    (event,) = plane.wait_events(kind=EventKind.OPEN, client_port=client.getsockname()[1])
    return client, server, event


def close_one(plane: DataPlane, client, server) -> None:  # type: ignore[no-untyped-def]
    before = plane.connections
    client.close()
    server.close()
    wait_for(lambda: plane.connections == before - 1)


def test_new_then_table() -> None:
    with RealPort() as first, RealPort() as second, DataPlane([first, second]) as plane:
        client, server, event = open_one(plane)
        assert (event["reason"], event["previous"]) == (Reason.NEW, -1)
        close_one(plane, client, server)
        for _ in range(3):
            *_, again = open_one(plane)
            assert (again["reason"], again["real"]) == (Reason.TABLE, event["real"])
        assert plane.stick.get(CLIENT)["reason"] == Reason.NEW


def test_pending() -> None:
    with BlackHole() as hole, RealPort() as real, DataPlane([hole, real], connect_timeout_ms=300, scheduler=1) as plane:
        freeze(plane.pids[0])  # so that both come, and both give up, in one turn of its loop
        ports = [plane.connect(CLIENT).getsockname()[1] for _ in range(2)]
        os.kill(plane.pids[0], signal.SIGCONT)
        failed = plane.wait_events(2, kind=EventKind.CONNECT_FAIL, real=0)
        reasons = {e["client_port"]: e["reason"] for e in failed}
        assert reasons == dict(zip(ports, (Reason.NEW, Reason.PENDING), strict=True))
        real.accept(), real.accept()
        plane.wait_events(kind=EventKind.OPEN, reason=Reason.PENDING, real=1)


def test_pinned_even_to_a_draining_server() -> None:
    with RealPort() as first, RealPort() as second, DataPlane([first, second]) as plane:
        for slot in (0, 1):
            plane.stick.pin(CLIENT, slot, StickTable.real_tag(bytes([slot + 1]) * 16), now_ms())
            plane.table.set_admin(slot, Admin.DRAIN)
            *_, event = open_one(plane)
            assert (event["reason"], event["real"]) == (Reason.PINNED, slot)
            plane.table.set_admin(slot, Admin.ONLINE)
        plane.table.set_health(1, Health.DOWN, "gone")
        *_, event = open_one(plane)  # a detour: the pin stays
        assert (event["reason"], event["real"], event["previous"]) == (Reason.DOWN, 0, 1)
        assert plane.stick.get(CLIENT)["real"] == 1
        assert plane.stick.get(CLIENT)["pinned"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plane, real: plane.table.set_health(real, Health.DOWN, "gone"), Reason.DOWN),
        (lambda plane, real: plane.table.set_admin(real, Admin.HALT), Reason.HALTED),
        (lambda plane, real: plane.table.clear_real(real), Reason.DOWN),
        (lambda plane, real: plane.change_real(real, id=b"another-server-x"), Reason.DOWN),
    ],
    ids=["down", "halted", "removed", "replaced"],
)
def test_moved_for_good(change, reason: Reason) -> None:  # type: ignore[no-untyped-def]
    with RealPort() as first, RealPort() as second, DataPlane([first, second]) as plane:
        *_, event = open_one(plane)
        old = event["real"]
        change(plane, old)
        if reason == Reason.DOWN and plane.table.real(old)["id"] == b"another-server-x":
            plane.table.set_health(old, Health.DOWN, "not probed yet")
        *_, moved = open_one(plane)
        assert (moved["reason"], moved["real"], moved["previous"]) == (reason, 1 - old, old)
        entry = plane.stick.get(CLIENT)
        assert (entry["real"], entry["previous"], entry["previous_reason"], entry["reason"]) == (
            1 - old,
            old,
            reason,
            reason,
        )
        *_, after = open_one(plane)
        assert (after["reason"], after["real"]) == (Reason.TABLE, 1 - old)


@pytest.mark.parametrize("policy", list(DrainPolicy))
@pytest.mark.parametrize("connected", [True, False])
def test_drain_policies(policy: DrainPolicy, connected: bool) -> None:
    with RealPort() as first, RealPort() as second, DataPlane([first, second], drain_policy=policy) as plane:
        client, server, event = open_one(plane)
        home = event["real"]
        if not connected:
            close_one(plane, client, server)
        plane.table.set_admin(home, Admin.DRAIN)
        *_, known = open_one(plane)
        stays = policy == DrainPolicy.UNTIL_EXPIRY or (policy == DrainPolicy.WHILE_CONNECTED and connected)
        assert known["reason"] == (Reason.TABLE if stays else Reason.DRAINED)
        assert (known["real"] == home) == stays
        for number in range(4):  # nobody new goes there
            *_, stranger = open_one(plane, f"127.0.1.{number + 1}")
            assert stranger["real"] == 1 - home
        if connected:
            client.sendall(b"live")
            assert server.recv(4) == b"live"


def test_a_drain_that_has_expired_takes_no_known_client_back() -> None:
    with RealPort() as first, RealPort() as second, DataPlane([first, second]) as plane:
        *_, event = open_one(plane)
        home = event["real"]
        plane.table.set_admin(home, Admin.DRAIN)
        *_, known = open_one(plane)
        assert known["reason"] == Reason.TABLE
        plane.table.set_drain_expired(home, True)
        *_, moved = open_one(plane)
        assert (moved["reason"], moved["real"]) == (Reason.DRAINED, 1 - home)


def test_halt_cuts_live_connections_on_all_workers() -> None:
    with silent_server() as first, silent_server() as second, DataPlane([first, second], workers=2) as plane:
        clients = [plane.connect(f"127.0.1.{n + 1}") for n in range(40)]
        opened = plane.wait_events(40, kind=EventKind.OPEN)
        assert {e["worker"] for e in opened} == {0, 1}
        plane.table.set_admin(0, Admin.HALT)
        plane.table.cut(0)
        cut = plane.wait_events(sum(e["real"] == 0 for e in opened), kind=EventKind.CLOSE)
        assert {(e["real"], e["ended"]) for e in cut} == {(0, Ended.HALT)}
        assert plane.real_connections()[0] == 0
        assert plane.real_connections()[1] == 40 - len(cut)
        of_port = {e["client_port"]: e["real"] for e in opened}
        for client in clients:
            if of_port[client.getsockname()[1]] == 0:
                with pytest.raises(ConnectionResetError):
                    read_all(client)
            else:
                client.close()


def test_cut_without_halt_ends_what_is_there_only() -> None:
    with RealPort() as real, DataPlane([real]) as plane:
        client, *_ = open_one(plane)
        plane.table.cut(0)
        (event,) = plane.wait_events(kind=EventKind.CLOSE)
        assert event["ended"] == Ended.CUT
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client, server, _ = open_one(plane)
        client.sendall(b"go on")
        assert server.recv(5) == b"go on"


def test_fallback_when_nobody_is_up_and_back() -> None:
    with RealPort() as real, RealPort() as sorry, DataPlane([real], fallback=sorry) as plane:
        plane.table.set_health(0, Health.DOWN, "gone")
        client, server, event = open_one(plane)
        assert (event["reason"], event["real"]) == (Reason.FALLBACK, 1)
        close_one(plane, client, server)
        assert plane.stick.get(CLIENT) is None
        plane.table.set_health(0, Health.UP, "back")
        *_, event = open_one(plane)
        assert (event["reason"], event["real"]) == (Reason.NEW, 0)


def test_without_persistence_nothing_is_stored() -> None:
    with RealPort() as first, RealPort() as second:
        with DataPlane([first, second], stick=None, persistence=0, scheduler=1) as plane:
            reals = [open_one(plane)[2]["real"] for _ in range(6)]
            assert sorted(reals) == [0, 0, 0, 1, 1, 1]
            assert {e["reason"] for e in plane.read_events()} == {Reason.NEW}


def test_persistence_runs_from_the_last_close() -> None:
    with RealPort() as first, RealPort() as second:
        with DataPlane([first, second], persistence_timeout_ms=3_500, scheduler=1) as plane:
            client, server, event = open_one(plane)
            created = now_ms()
            wait_for(lambda: now_ms() > created + 4_000)  # held: does not expire
            other = open_one(plane)
            assert (other[2]["reason"], other[2]["real"]) == (Reason.TABLE, event["real"])
            close_one(plane, other[0], other[1])
            close_one(plane, client, server)
            closed = plane.stick.get(CLIENT)["closed_ms"]
            assert closed >= created + 4_000
            *_, back = open_one(plane)
            assert back["reason"] == Reason.TABLE
            plane.close_clients()
            wait_for(lambda: plane.connections == 0)
            plane.change(persistence_timeout_ms=300)  # from here on nobody has to come in time
            closed = plane.stick.get(CLIENT)["closed_ms"]
            wait_for(lambda: now_ms() > closed + 301)
            *_, event = open_one(plane)
            assert event["reason"] == Reason.NEW
