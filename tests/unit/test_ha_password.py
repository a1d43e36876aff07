"""What pairing asks for: the web user's argon2id hash, proven without it; costs within bounds; guessing is slow."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from lbfast.ha.password import Challenge, FirstOf, PasswordFile, Patience, derive, is_proof, prove, read_challenge
from lbfast.ha.web_user import WebUser, parse
from lbfast.web.store import open_store
from lbfast.web.users import FIRST_USER, Users

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def keep_user(state_dir: Path, hashed: str | None) -> None:
    store = open_store(state_dir / "web")
    users = Users(store)
    users.ensure_first()
    if hashed is not None:
        users.keep_hash(FIRST_USER, hashed)
    store.close()


def proves(store: WebUser | FirstOf | PasswordFile, password: str) -> bool:
    """As both ends do it; the challenge as it comes over the wire."""
    challenge = store.challenge()
    assert challenge is not None
    verifier = derive(password, read_challenge(challenge.as_document()))
    return is_proof(prove(verifier, "asking", "n", "a", "b"), store.verifier(), "asking", "n", "a", "b")


def test_the_web_users_password_is_the_one(tmp_path: Path) -> None:
    assert WebUser(tmp_path).challenge() is None, "no database"
    keep_user(tmp_path, None)
    assert WebUser(tmp_path).challenge() is None, "no password"
    keep_user(tmp_path, CHEAP.hash(PASSWORD))
    assert proves(WebUser(tmp_path), PASSWORD)
    assert not proves(WebUser(tmp_path), PASSWORD + "!")


def test_it_counts_while_the_web_process_has_the_database_open(tmp_path: Path) -> None:
    store = open_store(tmp_path / "web")
    Users(store).ensure_first()
    Users(store).keep_hash(FIRST_USER, CHEAP.hash(PASSWORD))  # still in the log beside the database
    assert proves(WebUser(tmp_path), PASSWORD)
    store.close()


@pytest.mark.root
def test_files_that_root_makes_stay_the_owners(tmp_path: Path) -> None:
    """Otherwise the web process could not write its own database any more."""
    keep_user(tmp_path, CHEAP.hash(PASSWORD))
    for path in (tmp_path / "web", tmp_path / "web" / "web.db"):
        os.chown(path, 65534, 65534)
    with sqlite3.connect(f"file:{tmp_path}/web/web.db?mode=ro", uri=True) as reader:
        reader.execute("SELECT 1 FROM users").fetchone()
        assert WebUser(tmp_path).challenge() is not None
        owners = {path.name: path.stat().st_uid for path in (tmp_path / "web").iterdir()}
    reader.close()
    assert set(owners.values()) == {65534}, owners


def test_a_damaged_database_is_no_password(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "web.db").write_bytes(b"nothing of SQLite's" * 100)
    assert WebUser(tmp_path).challenge() is None
    assert WebUser(tmp_path).verifier() == b""
    assert not is_proof(prove(b"", "asking", "n", "a", "b"), b"", "asking", "n", "a", "b")


def test_the_web_user_goes_before_the_pairing_password(tmp_path: Path) -> None:
    PasswordFile(tmp_path).set("another one")
    both = FirstOf([WebUser(tmp_path), PasswordFile(tmp_path)])
    assert proves(both, "another one")
    keep_user(tmp_path, CHEAP.hash(PASSWORD))
    assert proves(both, PASSWORD)
    assert not proves(both, "another one")


SALT, HASH = "e5oXAcSCtfe3e/c5OcPoXw", "txRQe6LCRfhUj1aPncVP+hjQ7zX9se/116+AAAAAAAA"


@pytest.mark.parametrize(
    "hashed",
    [
        *("", "!", "$argon2id$", "$2b$12$abc"),
        f"$argon2i$v=19$m=19456,t=2,p=1${SALT}${HASH}",
        f"$argon2id$v=16$m=19456,t=2,p=1${SALT}${HASH}",
        f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH[:24]}",
        f"$argon2id$v=19$m=19456,t=2,p=1${SALT}$no*base64",
    ],
)
def test_what_is_no_hash_of_a_password_that_could_be_asked_for(hashed: str) -> None:
    assert parse(f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH}") is not None
    assert parse(hashed) is None


GOOD = Challenge(b"s" * 16, "of somebody", "argon2id", 3, 65_536, 2, 32).as_document()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"memory": 64 << 20}, "memory"),
        ({"memory": 8}, "memory"),
        ({"time": 1}, "time"),
        ({"time": 10_000}, "time"),
        ({"lanes": "2"}, "lanes"),
        ({"length": 4}, "length"),
        ({"kind": "md5"}, "does not use"),
        ({"salt": ""}, "does not use"),
        ({"salt": "zz"}, "hex"),
    ],
)
def test_a_peer_cannot_choose_the_costs(wish: dict[str, object], said: str) -> None:
    """Too little and its proof could be guessed at leisure, too much and this box chokes."""
    assert read_challenge(GOOD).as_document() == GOOD
    with pytest.raises(ValueError, match=said):
        read_challenge(GOOD | wish)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)))
def test_anything_else_is_refused(document: object) -> None:
    with pytest.raises(ValueError):
        read_challenge(document)


def test_guessing_is_slow_and_an_operator_waits_a_minute_at_most() -> None:
    patience, now, tried = Patience(), 1000.0, 0
    while now < 1000 + 3600:
        wait = patience.wait(now)
        assert wait <= 60.0
        if wait == 0:
            tried += 1
            patience.failed(now)
        now += max(wait, 0.001)
    assert tried <= 5 + 5 + 60, tried
    assert patience.wait(now + 901) == 0.0
    patience.failed(now + 901)
    assert patience.wait(now + 901) == 0.0, "it is forgotten after a quarter of an hour"
