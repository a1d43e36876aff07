"""The store of versions: kept, listed, bounded, and never trusted blindly."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbfast.config.versions import MOST, Version, VersionStore, adopt_text


def made(number: int, reason: str = "") -> Version:
    return Version(number, "2026-03-01T08:00:00+00:00", "root", reason, "/etc/lbfast/lbfast.toml", ("a change",))


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path)


def test_an_empty_store(store: VersionStore) -> None:
    assert (store.newest(), store.all(), store.text(1)) == (0, [], None)


def test_what_is_kept_is_found_again(store: VersionStore) -> None:
    store.add(made(1, "first"), "x = 'ü'\n")
    store.add(made(2), "y = 2\n")
    assert store.all() == [made(2), made(1, "first")]
    assert store.text(1) == "x = 'ü'\n"


def test_the_oldest_are_dropped(store: VersionStore) -> None:
    for number in range(1, MOST + 4):
        store.add(made(number), f"x = {number}\n")
    assert store.numbers() == list(range(4, MOST + 4))
    assert store.text(3) is None
    assert len(list(store.directory.iterdir())) == 2 * MOST


def test_versions_that_never_ran_are_forgotten(store: VersionStore) -> None:
    for number in (1, 2, 3):
        store.add(made(number), "x = 1\n")
    store.drop_after(1)
    assert store.numbers() == [1]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"at": '])
def test_a_damaged_file_hides_only_its_version(store: VersionStore, content: bytes) -> None:
    store.add(made(1), "x = 1\n")
    store.add(made(2), "x = 2\n")
    (store.directory / "000001.json").write_bytes(content)
    assert store.all() == [made(2)]


def test_a_start_takes_the_newest_version_if_it_is_the_same_text(store: VersionStore) -> None:
    assert adopt_text(store, "x = 1\n", made(0)) == (1, None)
    assert adopt_text(store, "x = 1\n", made(0)) == (1, None)
    assert adopt_text(store, "x = 2\n", made(0)) == (2, None)
    assert adopt_text(store, "x = 1\n", made(0)) == (3, None)


def test_a_start_goes_on_when_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "versions").write_text("in the way")
    number, trouble = adopt_text(VersionStore(tmp_path), "x = 1\n", made(0))
    assert number == 1
    assert trouble is not None
    assert "cannot be kept" in trouble


def test_a_link_in_its_place_is_not_followed(store: VersionStore, tmp_path: Path) -> None:
    """Root writes there at each start, and control's user could lay one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "000001.json").write_text("{}")
    store.directory.symlink_to(elsewhere)
    assert store.numbers() == []
    with pytest.raises(OSError, match="versions"):
        store.add(made(2), "x = 1\n")
    assert [path.name for path in elsewhere.iterdir()] == ["000001.json"]
    (told,) = store.move_damaged()
    assert "was a link" in told
    store.add(made(2), "x = 1\n")
    assert store.numbers() == [2]
    assert [path.name for path in elsewhere.iterdir()] == ["000001.json"]


def test_a_linked_version_is_not_read(store: VersionStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("only root may read this")
    store.add(made(1), "x = 1\n")
    (store.directory / "000001.toml").unlink()
    (store.directory / "000001.toml").symlink_to(secret)
    assert store.text(1) is None
    store.add(made(1), "x = 2\n")  # the link is replaced, what it names is not
    assert store.text(1) == "x = 2\n"
    assert secret.read_text() == "only root may read this"
