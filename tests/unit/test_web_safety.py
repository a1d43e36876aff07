"""Users, sessions, keys, the throttle, the second factor and the audit chain, with a clock of the test's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.web import totp
from lbfast.web.audit import Audit
from lbfast.web.keys import ApiKeys
from lbfast.web.passwords import hash_password, is_password, why_weak
from lbfast.web.roles import ROLES, check_role, may
from lbfast.web.sessions import ABSOLUTE_S, IDLE_S, MOST_PER_USER, Sessions
from lbfast.web.setup import SetupCode
from lbfast.web.store import open_store
from lbfast.web.throttle import FREE_SOURCE, FREE_USER, LONGEST_USER_S, Throttle
from lbfast.web.users import FIRST_USER, UserFault, Users


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def seconds(self) -> float:
        return self.at.timestamp()

    def go(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    store = open_store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def users(store: sqlite3.Connection, clock: Clock) -> Users:
    users = Users(store, clock)
    users.ensure_first()
    return users


# --- roles and users ------------------------------------------------------------------------------


def test_each_role_may_what_the_next_one_may() -> None:
    for place, role in enumerate(ROLES):
        assert [may(role, wanted) for wanted in ROLES] == [other >= place for other in range(len(ROLES))]
    assert not may("nonsense", "report")
    with pytest.raises(ValueError, match="configure, operate or report"):
        check_role("root")


def test_the_first_user_has_no_password_and_cannot_log_in(users: Users) -> None:
    assert [(it.name, it.role, it.has_password) for it in users.all()] == [(FIRST_USER, "configure", False)]
    assert users.needs_setup()
    assert not users.check_password(FIRST_USER, "")
    users.set_password(FIRST_USER, "correct horse battery")
    assert not users.needs_setup()
    assert users.check_password(FIRST_USER, "correct horse battery")
    assert not users.check_password(FIRST_USER, "correct horse batterY")
    assert not users.check_password("nobody", "correct horse battery")


def test_somebody_who_may_configure_is_always_left(users: Users) -> None:
    users.set_password(FIRST_USER, "correct horse battery")
    users.add("alice", "operate")
    for act in (lambda: users.remove(FIRST_USER), lambda: users.set_role(FIRST_USER, "report")):
        with pytest.raises(UserFault, match="nobody would be left"):
            act()
    users.set_role("alice", "configure")
    with pytest.raises(UserFault, match="nobody would be left"):
        users.remove(FIRST_USER)  # alice has no password: she could not log in
    users.set_password("alice", "correct horse battery")
    users.remove(FIRST_USER)
    assert [it.name for it in users.all()] == ["alice"]


@pytest.mark.parametrize("name", ["", "a b", "-a", "../x", "a" * 65, "ä", "a\n"])
def test_bad_user_names(users: Users, name: str) -> None:
    with pytest.raises(UserFault):
        users.add(name, "report")


@pytest.mark.parametrize("weak", ["short", "password123", "aaaaaaaaaaaa", "loadbalancer1", "x" * 300])
def test_weak_passwords_are_told(weak: str) -> None:
    assert why_weak(weak, FIRST_USER)


def test_hashes_are_argon2id_and_salted() -> None:
    first, second = hash_password("correct horse battery"), hash_password("correct horse battery")
    assert first.startswith("$argon2id$")
    assert first != second
    assert is_password(first, "correct horse battery")
    assert not is_password("no hash", "correct horse battery")
    assert not is_password(None, "correct horse battery")


# --- sessions -------------------------------------------------------------------------------------


def test_a_session_ends_when_idle_and_at_last_anyway(store: sqlite3.Connection, users: Users, clock: Clock) -> None:
    sessions = Sessions(store, clock)
    token = sessions.begin(FIRST_USER, "192.0.2.1", "a browser")
    clock.go(IDLE_S - 1)
    assert sessions.find(token)
    clock.go(IDLE_S - 1)
    assert sessions.find(token), "use kept it alive"
    clock.go(IDLE_S + 1)
    assert sessions.find(token) is None
    token = sessions.begin(FIRST_USER, "192.0.2.1", "a browser")
    for _ in range(int(ABSOLUTE_S / IDLE_S * 2)):
        clock.go(IDLE_S / 2)
        sessions.find(token)
    clock.go(1)
    assert sessions.find(token) is None, "nothing keeps it for ever"


def test_live_updates_do_not_keep_a_session_alive(store: sqlite3.Connection, users: Users, clock: Clock) -> None:
    sessions = Sessions(store, clock)
    token = sessions.begin(FIRST_USER, "", "")
    for _ in range(10):
        clock.go(IDLE_S / 9)
        found = sessions.find(token, touch=False)
    assert found is None


def test_tokens_are_not_kept_and_are_bounded(store: sqlite3.Connection, users: Users, clock: Clock) -> None:
    sessions = Sessions(store, clock)
    tokens = [sessions.begin(FIRST_USER, "", "") for _ in range(MOST_PER_USER + 5)]
    kept = "".join(map(str, (tuple(row) for row in store.execute("SELECT * FROM sessions"))))
    assert not any(token in kept for token in tokens)
    assert len(sessions.of_user(FIRST_USER)) == MOST_PER_USER
    users.set_password(FIRST_USER, "correct horse battery")
    assert sessions.of_user(FIRST_USER) == [], "a new password ends them all"


# --- keys and the setup code ----------------------------------------------------------------------


def test_a_key_is_shown_once_and_ends(store: sqlite3.Connection, clock: Clock) -> None:
    keys = ApiKeys(store, clock)
    key, secret = keys.create("operate", "a test", "for a script", timedelta(days=90))
    assert secret not in "".join(map(str, (tuple(row) for row in store.execute("SELECT * FROM keys"))))
    assert keys.check(secret) is not None
    assert keys.check(secret + "x") is None
    clock.go(90 * 86_400 - 1)
    assert keys.check(secret) is not None
    clock.go(1)
    assert keys.check(secret) is None
    assert keys.revoke(key.id)
    assert not keys.revoke(key.id)


def test_the_setup_code_works_once(store: sqlite3.Connection, users: Users, clock: Clock, tmp_path: Path) -> None:
    setup = SetupCode(store, tmp_path, clock)
    code = setup.ensure()
    assert setup.ensure() == code, "the console shows the same one again"
    assert (tmp_path / "setup-code").stat().st_mode & 0o777 == 0o600
    assert not setup.use("aaaaa-aaaaa-aaaaa-aaaaa")
    assert setup.use(code.upper() + " ")
    assert not setup.use(code)
    assert not (tmp_path / "setup-code").exists()


# --- throttle -------------------------------------------------------------------------------------


def test_a_source_waits_longer_after_each_failure(clock: Clock) -> None:
    throttle = Throttle(clock.seconds)
    for _ in range(FREE_SOURCE - 1):
        throttle.failed("alice", "192.0.2.1")
    assert throttle.wait("alice", "192.0.2.1") == 0
    waits = []
    for _ in range(6):
        throttle.failed("alice", "192.0.2.1")
        waits.append(throttle.wait("alice", "192.0.2.1"))
    assert waits == sorted(waits)
    assert waits[0] < waits[-1]
    assert throttle.wait("alice", "192.0.2.2") == 0, "others are not concerned"
    throttle.succeeded("alice", "192.0.2.1")
    assert throttle.wait("alice", "192.0.2.1") == 0


def test_a_user_under_attack_is_not_shut_out(clock: Clock) -> None:
    throttle = Throttle(clock.seconds)
    throttle.succeeded("alice", "192.0.2.250")
    for number in range(FREE_USER * 3):
        throttle.failed("alice", f"198.51.100.{number}")
    assert 0 < throttle.wait("alice", "203.0.113.1") <= LONGEST_USER_S
    assert throttle.wait("alice", "192.0.2.250") == 0, "where she has logged in before she still can"


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2", "3"]), st.floats(0, 2000))))
def test_a_wait_always_ends(acts: list[tuple[str, str, float]]) -> None:
    clock = Clock()
    throttle = Throttle(clock.seconds)
    for user, source, pause in acts:
        throttle.failed(user, source)
        clock.go(pause)
    for user in "ab":
        for source in "123":
            wait = throttle.wait(user, source)
            clock.go(wait)
            assert throttle.wait(user, source) <= 1e-6


# --- second factor --------------------------------------------------------------------------------


def test_a_code_works_once_and_not_late(users: Users, clock: Clock) -> None:
    secret = totp.new_secret()
    users.set_totp(FIRST_USER, secret)
    import pyotp

    code = pyotp.TOTP(secret).at(clock.at)
    step = totp.step_of(secret, code, clock.seconds())
    assert step is not None
    assert users.use_totp(FIRST_USER, step)
    assert not users.use_totp(FIRST_USER, step), "whoever looked over the shoulder comes too late"
    assert totp.step_of(secret, code, clock.seconds() + 61) is None
    assert totp.step_of(secret, "abcdef", clock.seconds()) is None
    assert totp.picture(totp.address_of(secret, FIRST_USER, "host")).startswith(b"<svg")


# --- audit ----------------------------------------------------------------------------------------


def filled(folder: Path, clock: Clock) -> Audit:
    audit = Audit(folder, clock)
    for number in range(5):
        audit.add("alice", "drain", f"server {number}", "192.0.2.1")
        clock.go(1)
    return audit


def test_the_chain_is_whole(tmp_path: Path, clock: Clock) -> None:
    audit = filled(tmp_path, clock)
    assert audit.verify().count == 5
    assert audit.verify().fault is None
    assert [it["detail"] for it in audit.newest(2)] == ["server 4", "server 3"]
    assert [it["detail"] for it in audit.newest(9, "SERVER 1")] == ["server 1"]


@pytest.mark.parametrize("how", ["change", "remove", "swap", "insert", "garbage", "forge"])
def test_tampering_is_seen(tmp_path: Path, clock: Clock, how: str) -> None:
    audit = filled(tmp_path, clock)
    lines = audit.path.read_text().splitlines(keepends=True)
    if how == "change":
        lines[2] = lines[2].replace("server 2", "server 9")
    elif how == "remove":
        del lines[2]
    elif how == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif how == "insert":
        lines.insert(2, lines[1])
    elif how == "garbage":
        lines[2] = "not JSON\n"
    else:
        record = json.loads(lines[2])
        lines[2] = json.dumps(record | {"who": "mallory", "hash": "0" * 64}) + "\n"
    audit.path.write_text("".join(lines))
    assert audit.verify().fault is not None


def test_a_broken_end_is_gone_on_from_and_told(tmp_path: Path, clock: Clock) -> None:
    audit = filled(tmp_path, clock)
    with audit.path.open("a") as file:
        file.write('{"half a li\n')
    audit.add("alice", "online")
    assert audit.verify().fault is not None
    assert audit.newest(1)[0]["what"] == "online"
