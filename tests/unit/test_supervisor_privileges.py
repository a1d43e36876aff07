"""Whom children become: every way to decide it; what is closed to a user; giving files away without following links."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfast.supervisor.capabilities import Capability
from lbfast.supervisor.ownership import give_log, give_state
from lbfast.supervisor.privileges import User, UserFault, closed_to, decide, why_not_executable

ALL = frozenset(range(41))
MINE = os.geteuid()
OTHER = User("alice", MINE + 4001, 4001)
needs_root = pytest.mark.skipif(MINE != 0, reason="needs root to give files away")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that everybody can go through; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="lbfast-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def users(*names: str):
    """A user database: these names, and our own."""
    table = {
        name: pwd.struct_passwd((name, "x", MINE + 100 + place, 77, "", "/", "")) for place, name in enumerate(names)
    }
    table["me"] = pwd.struct_passwd(("me", "x", MINE, 77, "", "/", ""))
    return table.__getitem__


def test_lbfast_if_there_is_such_a_user() -> None:
    found = decide(None, [], ALL, users("lbfast", "nobody"))
    assert found.user == User("lbfast", MINE + 100, 77)
    assert found.notes == ()
    assert found.is_privileged


def test_else_nobody_and_it_is_said() -> None:
    found = decide(None, [], ALL, users("nobody"))
    assert found.user is not None
    assert found.user.name == "nobody"
    assert "make one (useradd --system lbfast)" in found.notes[0]


def test_the_configured_one() -> None:
    found = decide("alice", [], ALL, users("lbfast", "alice"))
    assert found.user is not None
    assert (found.user.name, found.notes) == ("alice", ())


def test_one_that_is_not_there() -> None:
    with pytest.raises(UserFault) as fault:
        decide("bob", [], ALL, users("lbfast"))
    assert fault.value.found == '"bob"'
    assert "useradd" in fault.value.expected


def test_our_own_is_no_change() -> None:
    found = decide("me", [], ALL, users("lbfast"))
    assert found.user is None
    assert found.notes == ("all processes run as me: the configuration says so",)


@pytest.mark.parametrize("held", [frozenset(), ALL - {Capability.SETUID}, ALL - {Capability.SETGID}])
def test_without_the_right_to_change_nobody_else_can_be_asked_for(held: frozenset[int]) -> None:
    assert decide(None, [], held, users("lbfast")).user is None
    assert decide("me", [], held, users("lbfast")).user is None
    for name in ("lbfast", "bob"):
        with pytest.raises(UserFault, match="without CAP_SETUID and CAP_SETGID"):
            decide(name, [], held, users("lbfast"))


def test_nothing_is_given_up_that_was_never_had() -> None:
    assert decide(None, [], frozenset(), users()).is_privileged is (MINE == 0)
    assert decide(None, [], {Capability.NET_ADMIN}, users()).is_privileged


def test_a_closed_directory_keeps_control_where_it_is_unless_a_user_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "closed" / "state").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    found = decide(None, [tmp_path / "closed" / "state"], ALL, users("lbfast"))
    assert found.keeps_control
    assert found.user is not None  # workers and health change all the same
    assert "control runs as root, because lbfast cannot reach" in found.notes[-1]
    with pytest.raises(UserFault, match="who cannot reach"):
        decide("lbfast", [tmp_path / "closed" / "state"], ALL, users("lbfast"))


@pytest.mark.parametrize("mode", range(8))
def test_closed_by_one_directory_on_the_way(reachable: Path, mode: int) -> None:
    place = reachable / "between" / "state"
    place.mkdir(parents=True)
    (reachable / "between").chmod(0o700 | mode)
    try:
        text = closed_to(place, OTHER)
        assert (text is None) == bool(mode & 1), text
        if text:
            assert f"{reachable / 'between'} is closed to it (drwx---" in text
        # Who owns a directory is judged by the owner's bits, whatever the others may.
        assert closed_to(place, User("me", MINE, 4001)) is None
    finally:
        (reachable / "between").chmod(0o700)


def test_a_script_that_the_user_may_not_execute(reachable: Path) -> None:
    script = reachable / "check.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert why_not_executable(script, OTHER) is None
    script.chmod(0o750)
    assert "which alice may not execute (-rwxr-x---)" in str(why_not_executable(script, OTHER))
    script.chmod(0o755)
    script.parent.chmod(0o700)
    assert "health runs it as alice" in str(why_not_executable(script, OTHER))


@needs_root
def test_state_is_given_and_links_are_not_followed(tmp_path: Path) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    (state / "versions").mkdir(parents=True)
    victim.write_text("root's own")
    (state / "state.json").write_text("{}")
    (state / "addresses.json").write_text("{}")
    (state / "ids.json").symlink_to(victim)
    os.link(victim, state / "versions" / "000001.json")
    (state / "versions" / "000002.json").write_text("{}")
    (state / "versions" / "000003.json").symlink_to(victim)
    give_state(state, OTHER)
    give_state(state, OTHER)  # at each start of control
    assert victim.stat().st_uid == 0
    assert (state / "state.json").stat().st_uid == OTHER.uid
    assert (state / "versions" / "000002.json").stat().st_uid == OTHER.uid
    assert (state / "addresses.json").stat().st_uid == 0
    found = state.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, OTHER.gid, 0o1775)


@needs_root
def test_a_state_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="Not a directory"):
        give_state(tmp_path / "link", OTHER)


@needs_root
def test_the_log_file(tmp_path: Path) -> None:
    log = tmp_path / "lb.log"
    give_log(log, OTHER)
    assert (log.stat().st_uid, stat.S_IMODE(log.stat().st_mode)) == (OTHER.uid, 0o640)
    log.write_text("one record\n")
    give_log(log, OTHER)
    assert log.read_text() == "one record\n"
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "link", tmp_path / "fifo", tmp_path / "no" / "such", Path("/dev/null")):
        give_log(place, OTHER)
    assert victim.stat().st_uid == 0
    assert Path("/dev/null").stat().st_uid == 0
    assert (tmp_path / "fifo").stat().st_uid == 0
