"""Who may use the control socket, with real users: strangers, lookers, operators, root, lbfast's own."""

from __future__ import annotations

import grp
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import Lbfast, free_port, real_server, virtual_service
from waiting import scaled

from lbfast.control import access
from lbfast.control.access import Access, Group, GroupFault, Right, access_of
from lbfast.control.client import Client, ControlError, ControlUnavailable
from lbfast.control.engine import Caller
from lbfast.control.server import MOST_LOOKERS
from lbfast.control.verbs import VERBS
from lbfast.model.appliance import ControlSettings

OPERATORS, REPORT, OTHER = "games", "users", "tape"  # groups that every Debian has
STRANGER = 4711
LOOK = {"overview", "persistence_show", "connections", "explain", "events", "health", "statistics", "version"}
LOOK |= {"history", "diff", "occupancy", "drain_plan", "logs", "series", "availability"}
LOOK |= {"candidate", "candidate_diff", "backups", "supports", "alerts", "ha_status", "schema", "certificates"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become several users")


def gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        pytest.skip(f"no group {name} on this machine")


def as_user(uid: int, group: int, groups: Sequence[int], work: Callable[[], Any]) -> Any:
    """What the work returns in a process of that user; an error of the client as its text."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(group, group, group)
            os.setresuid(uid, uid, uid)
            try:
                answer = work()
            except (ControlError, ControlUnavailable) as error:
                answer = f"{getattr(error, 'code', 'unavailable')}: {error}"
            os.write(writing, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as stream:
        return json.loads(stream.read())


def running(**control: str) -> Lbfast:
    service = virtual_service(free_port(), [real_server("R1", 9)])
    given = {"workers": 1, "user": "daemon", "control": control, "virtual_service": [service]}
    return Lbfast({key: value for key, value in given.items() if value})


@pytest.fixture(scope="module")
def lb() -> Iterator[Lbfast]:
    """Both groups are configured."""
    gid(OPERATORS), gid(REPORT)
    with running(group=OPERATORS, report_group=REPORT) as lb:
        yield lb


def look(lb: Lbfast) -> Any:
    return Client(lb.runtime_dir / "control.sock").call("version")["workers"]


def change(lb: Lbfast) -> Any:
    return Client(lb.runtime_dir / "control.sock").call("weight", service="Symphony", real="R1", weight=7)["weight"]


@needs_root
@pytest.mark.parametrize("groups", [(OPERATORS, []), (OTHER, [OPERATORS]), (OTHER, [REPORT, OPERATORS])])
def test_an_operator_may_do_all(lb: Lbfast, groups: tuple[str, list[str]]) -> None:
    more = [gid(name) for name in groups[1]]
    assert as_user(STRANGER, gid(groups[0]), more, lambda: look(lb)) == 1
    assert as_user(STRANGER, gid(groups[0]), more, lambda: change(lb)) == 7


@needs_root
def test_the_user_that_lbfast_runs_as_may_do_all(lb: Lbfast) -> None:
    assert as_user(1, gid(OTHER), [], lambda: change(lb)) == 7


@needs_root
@pytest.mark.parametrize("groups", [(REPORT, []), (OTHER, [REPORT])])
def test_a_looker_may_look(lb: Lbfast, groups: tuple[str, list[str]]) -> None:
    more = [gid(name) for name in groups[1]]
    assert as_user(STRANGER, gid(groups[0]), more, lambda: look(lb)) == 1
    refused = as_user(STRANGER, gid(groups[0]), more, lambda: change(lb))
    expected = f"may only look at lbfast here; 'weight' is for root and members of the group {OPERATORS}"
    assert refused == f"forbidden: uid {STRANGER} {expected}"


@needs_root
def test_a_stranger_is_told_who_may(lb: Lbfast) -> None:
    for work in (look, change):
        refused = as_user(STRANGER, gid(OTHER), [], lambda work=work: work(lb))
        expected = f"root and members of the group {OPERATORS} may, and members of the group {REPORT} may look"
        assert refused == f"forbidden: uid {STRANGER} may not use lbfast here; {expected}"


@needs_root
def test_strangers_do_not_take_the_places_of_others(lb: Lbfast) -> None:
    """300 connections, more than the socket serves at once, that ask nothing and stay."""

    def flood() -> Any:
        held = [_connected(lb) for _ in range(300)]
        answers = [sock.recv(1) for sock in held]
        return [len(answers), look_refused(lb)]

    def look_refused(lb: Lbfast) -> bool:
        try:
            look(lb)
        except ControlError as error:
            return error.code == "forbidden"
        return False

    assert as_user(STRANGER, gid(OTHER), [], flood) == [300, True]
    assert look(lb) == 1


@needs_root
def test_lookers_leave_room_for_operators(lb: Lbfast) -> None:
    def flood() -> Any:
        held = [_connected(lb) for _ in range(MOST_LOOKERS + 20)]
        for sock in held:
            sock.sendall(b'{"verb":"version"}\n')
        told = [b"may only look are connected" in sock.recv(4096) for sock in held]
        operator = as_user_again()
        return [told.count(True), operator]

    def as_user_again() -> bool:
        os.write(asking, b"x")
        return os.read(answered, 1) == b"y"

    asked, asking = os.pipe2(os.O_CLOEXEC)
    answered, answering = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:  # root, while the lookers hold their places
        try:
            os.read(asked, 1)
            os.write(answering, b"y" if change(lb) == 7 else b"n")
        finally:
            os._exit(0)
    try:
        assert as_user(STRANGER, gid(REPORT), [], flood) == [20, True]
    finally:
        os.waitpid(helper, 0)
        for fd in (asked, asking, answered, answering):
            os.close(fd)


def _connected(lb: Lbfast) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(scaled(20))
    deadline = time.monotonic() + scaled(20)
    while True:
        try:
            sock.connect(str(lb.runtime_dir / "control.sock"))
        except BlockingIOError:  # the queue of the socket is full
            assert time.monotonic() < deadline
            time.sleep(0.005)
        else:
            return sock


@needs_root
def test_without_a_report_group_the_file_itself_keeps_strangers_out() -> None:
    if access_of(ControlSettings(), frozenset()).report is not None:
        pytest.skip("this machine has a group lbfast-report")
    with running(group=OPERATORS) as lb:
        found = (lb.runtime_dir / "control.sock").stat()
        assert (found.st_gid, found.st_mode & 0o777) == (gid(OPERATORS), 0o660)
        assert "permission denied" in as_user(STRANGER, gid(OTHER), [], lambda: look(lb))
        assert as_user(STRANGER, gid(OPERATORS), [], lambda: change(lb)) == 7


# --- the decision itself ---------------------------------------------------------------------------

OPS, REP = Group("ops", 10), Group("rep", 20)


@pytest.mark.parametrize(
    ("uid", "gids", "right"),
    [
        (0, set(), Right.CHANGE),
        (5, set(), Right.CHANGE),
        (6, set(), Right.NOTHING),
        (6, {10}, Right.CHANGE),
        (6, {10, 20}, Right.CHANGE),
        (6, {20, 30}, Right.LOOK),
        (6, {0, 30}, Right.NOTHING),
    ],
)
def test_rights(uid: int, gids: set[int], right: Right) -> None:
    found = Access(frozenset({5}), OPS, REP)
    assert found.right_of(Caller(1, uid, "x", frozenset(gids))) is right


def test_without_groups_only_users_count() -> None:
    found = Access(frozenset({5}))
    assert found.mode == 0o660
    assert found.right_of(Caller(1, 6, "x", frozenset({0, 10, 20}))) is Right.NOTHING
    assert found.refusal(Caller(1, 6, "x")) == "x may not use lbfast here; root and lbfast's own user may"


def test_every_verb_is_either_looking_or_changing() -> None:
    """A new verb has to be thought about: those that are for lookers stand in this file."""
    assert {name for name, verb in VERBS.items() if verb.needed is Right.LOOK} == LOOK


def test_groups_by_default_and_by_name() -> None:
    table = {access.GROUP: 7, "ops": 8}

    def find(name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", table[name], []))

    assert access_of(ControlSettings(), frozenset(), find) == Access(frozenset(), Group("lbfast", 7), None)
    assert access_of(ControlSettings(report_group="ops"), frozenset(), find).mode == 0o666
    with pytest.raises(GroupFault) as fault:
        access_of(ControlSettings(report_group="rep"), frozenset(), find)
    assert fault.value.key == "report_group"


def test_the_kernel_tells_all_groups(tmp_path: Path) -> None:
    from lbfast.control.peer import caller_of

    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        caller = caller_of(ours)
    assert caller.gids == {os.getegid(), *os.getgroups()}
