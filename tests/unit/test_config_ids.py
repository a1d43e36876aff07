"""Identities: made once, kept by label, never given twice, and a damaged file is no reason not to start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.config import id_file
from lbfast.config.id_file import keep_ids, load_ids, save_ids
from lbfast.config.ids import KnownIds, assign_ids
from lbfast.config.store import parse
from lbfast.model.appliance import Config

GIVEN = UUID("0b5e4f0a-6a3c-4c0e-9d55-0d2f6a1f7c11")


def config(*labels: str, identity: str = "", fallback: bool = True) -> Config:
    """One service "A" with these real servers; ``identity`` is of the first."""
    text = '[[virtual_service]]\nlabel = "A"\naddress = "192.0.2.1"\nports = "443"\n'
    text += 'fallback_server = { address = "192.0.2.9" }\n' if fallback else ""
    for number, label in enumerate(labels):
        text += f'[[virtual_service.real_server]]\nlabel = "{label}"\naddress = "192.0.2.{number + 11}"\n'
        text += f'id = "{identity}"\n' if identity and not number else ""
    return parse(text).config


def ids_of(it: Config) -> dict[str, UUID]:
    service = it.virtual_services[0]
    found = {"": service.id, **{real.label: real.id for real in service.real_servers}}
    if service.fallback_server is not None:
        found["fallback"] = service.fallback_server.id
    assert None not in found.values()
    return {label: identity for label, identity in found.items() if identity}


def numbered() -> Iterator[UUID]:
    return (UUID(int=number) for number in range(1, 1_000))


def test_everything_gets_an_identity_and_keeps_it() -> None:
    make = numbered().__next__
    first, known = assign_ids(config("x", "y"), KnownIds(), make)
    assert len(set(ids_of(first).values())) == 4
    again, known_again = assign_ids(config("y", "x"), known, make)
    assert ids_of(again) == ids_of(first)
    assert known_again == known


def test_an_identity_in_the_file_wins_and_is_remembered() -> None:
    _, known = assign_ids(config("x"), KnownIds())
    named, known = assign_ids(config("x", identity=str(GIVEN)), known)
    assert ids_of(named)["x"] == GIVEN
    assert ids_of(assign_ids(config("x"), known)[0])["x"] == GIVEN


def test_an_identity_carried_to_a_new_label_is_not_given_to_the_old_one() -> None:
    _, known = assign_ids(config("old", identity=str(GIVEN)), KnownIds())
    renamed, known = assign_ids(config("new", "old", identity=str(GIVEN)), known)
    ids = ids_of(renamed)
    assert ids["new"] == GIVEN
    assert ids["old"] != GIVEN
    assert known.ids["A", "old"] == ids["old"]


def test_a_server_that_comes_back_is_the_same_one() -> None:
    first, known = assign_ids(config("x", "y"), KnownIds())
    _, known = assign_ids(config("x"), known)
    assert ids_of(assign_ids(config("x", "y"), known)[0]) == ids_of(first)


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), min_size=1, max_size=8))
def test_whatever_the_history_no_identity_is_used_twice_and_none_changes(history: list[list[str]]) -> None:
    known = KnownIds()
    seen: dict[str, UUID] = {}
    for labels in history:
        assigned, known = assign_ids(config(*labels), known)
        ids = ids_of(assigned)
        assert len(set(ids.values())) == len(ids)
        assert len(set(known.ids.values())) == len(known.ids)
        for label, identity in ids.items():
            assert seen.setdefault(label, identity) == identity


def test_identities_survive_a_restart(tmp_path: Path) -> None:
    first, warnings = keep_ids(config("x", "é <b>"), tmp_path)
    assert warnings == []
    again, warnings = keep_ids(config("x", "é <b>"), tmp_path)
    assert (ids_of(again), warnings) == (ids_of(first), [])
    assert [path.name for path in tmp_path.iterdir()] == ["ids.json"]
    assert (tmp_path / "ids.json").stat().st_mode & 0o777 == 0o600


def test_a_file_that_says_it_all_is_not_written_again(tmp_path: Path) -> None:
    keep_ids(config("x"), tmp_path)
    before = (tmp_path / "ids.json").stat().st_ino
    keep_ids(config("x"), tmp_path)
    assert (tmp_path / "ids.json").stat().st_ino == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"version": 2, "virtual_services": {}}',
        b'{"version": 1}',
        b'{"version": 1, "virtual_services": []}',
        b'{"version": 1, "virtual_services": {"A": {"id": "x", "real_servers": {}}}}',
        b'{"version": 1, "virtual_services": {"A": {"id": 7, "real_servers": {}}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside_and_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ids.json"
    path.write_bytes(content)
    made, warnings = keep_ids(config("x"), tmp_path)
    assert len(warnings) == 1
    assert "moved to ids.json.damaged-1" in warnings[0]
    assert (tmp_path / "ids.json.damaged-1").read_bytes() == content
    assert ids_of(keep_ids(config("x"), tmp_path)[0]) == ids_of(made)
    path.write_bytes(content)
    assert "damaged-2" in keep_ids(config("x"), tmp_path)[1][0]


def test_a_state_directory_that_is_gone_is_told_and_the_start_goes_on(tmp_path: Path) -> None:
    made, warnings = keep_ids(config("x"), tmp_path / "gone")
    assert set(ids_of(made)) == {"", "x", "fallback"}
    assert len(warnings) == 1
    assert warnings[0].startswith("identities cannot be kept")


def test_what_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ids.json").mkdir()
    _, warnings = keep_ids(config("x"), tmp_path)
    assert len(warnings) == 1
    assert "cannot be read" in warnings[0]
    assert (tmp_path / "ids.json").is_dir()


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ids.json"
    known = KnownIds({("A", ""): GIVEN})
    save_ids(path, known)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_ids(path, KnownIds())
    assert load_ids(path).known == known
    assert [it.name for it in tmp_path.iterdir()] == ["ids.json"], "the temporary file is gone"


def test_the_file_is_what_its_version_says(tmp_path: Path) -> None:
    save_ids(tmp_path / "ids.json", KnownIds({("A", ""): GIVEN, ("A", "x"): UUID(int=5)}))
    document = json.loads((tmp_path / "ids.json").read_text())
    assert document["version"] == id_file.VERSION
    assert document["virtual_services"] == {"A": {"id": str(GIVEN), "real_servers": {"x": str(UUID(int=5))}}}
