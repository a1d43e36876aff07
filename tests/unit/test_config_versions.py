"""The store of versions: kept, listed, bounded, and never trusted blindly."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbfast.config.first import choose_first, taken_unchanged
from lbfast.config.store import load
from lbfast.config.taken import is_as_taken, note_taken
from lbfast.config.versions import ASIDE, GIVEN, MOST, Version, VersionStore, adopt_text

FILE = "/etc/lbfast/lbfast.toml"


def made(number: int, reason: str = "", file: str = FILE) -> Version:
    return Version(number, "2026-03-01T08:00:00+00:00", "root", reason, file, ("a change",))


def ran(store: VersionStore, *steps: tuple[str, str, str]) -> None:
    """Versions one after the other, each with its reason, file and text."""
    for reason, file, text in steps:
        store.add(made(store.newest() + 1, reason, file), text)


A, B = (GIVEN, "/a", "a = 1"), (GIVEN, "/b", "b = 1")
WEB = ("by web", "candidate", "w = 1")


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


@pytest.mark.parametrize(
    ("before", "file", "text", "taken"),
    [
        ([], "/a", "a = 1", None),
        ([A], "/a", "a = 1", 1),
        ([A], "/a", "a = 2", None),
        ([A, WEB], "/a", "a = 1", 1),
        ([A, B], "/a", "a = 1", None),  # another file was started with since
        ([A, B, A, WEB], "/a", "a = 1", 3),
        ([A, B, WEB], "/b", "b = 1", 2),
        ([A, ("by hand", "/b", "b = 1")], "/a", "a = 1", 1),  # a commit of another file is a commit
        ([A, ("by hand", "/b", "b = 1"), WEB], "/b", "b = 1", 2),
        ([A, ("SIGHUP", "/a", "a = 2"), WEB], "/a", "a = 2", 2),
        ([A, ("SIGHUP", "/a", "a = 2"), WEB], "/a", "a = 1", None),
    ],
)
def test_the_file_that_counts(
    store: VersionStore, before: list[tuple[str, str, str]], file: str, text: str, taken: int | None
) -> None:
    ran(store, *before)
    found = taken_unchanged(store, file, text)
    assert (found and found.number) == taken


def test_a_file_that_was_never_taken_makes_a_version_although_its_text_runs(store: VersionStore) -> None:
    ran(store, A)
    assert adopt_text(store, "a = 1", made(0, GIVEN, "/moved")) == (2, None)
    ran(store, WEB)
    found = taken_unchanged(store, "/moved", "a = 1")
    assert found is not None
    assert found.number == 2


def test_the_version_of_the_file_outlives_any_number_of_commits(store: VersionStore) -> None:
    ran(store, A, ("SIGHUP", "/a", "a = 2"), *[WEB] * (MOST + 5))
    assert store.numbers()[:3] == [1, 2, 8]
    found = taken_unchanged(store, "/a", "a = 2")
    assert found is not None
    assert found.number == 2


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


def aside(tmp_path: Path) -> list[str]:
    return sorted(path.read_text() for path in (tmp_path / ASIDE).glob("*.toml"))


def test_what_is_put_aside_is_kept_beside_the_history_once(store: VersionStore, tmp_path: Path) -> None:
    for number, text in ((1, "x = 1\n"), (2, "x = 2\n"), (3, "x = 3\n")):
        store.add(made(number), text)
    assert store.put_aside([2, 3]) == [2, 3]
    assert store.numbers() == [1]
    store.add(made(2), "x = 2\n")
    store.add(made(3), "x = 33\n")
    assert store.put_aside([2, 3]) == [3], "the same text again is none that would be lost"
    assert aside(tmp_path) == ["x = 2\n", "x = 3\n", "x = 33\n"]
    assert store.put_aside([]) == []


def test_what_is_put_aside_is_bounded(store: VersionStore, tmp_path: Path) -> None:
    for number in range(1, MOST + 6):
        store.add(made(number), f"x = {number}\n")
        store.put_aside([number])
    assert len(aside(tmp_path)) == MOST
    assert "x = 1\n" not in aside(tmp_path)


def test_a_link_in_place_of_the_aside_directory_is_not_followed(store: VersionStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ASIDE).symlink_to("elsewhere")
    store.add(made(1), "x = 1\n")
    with pytest.raises(OSError, match="Not a directory"):
        store.put_aside([1])
    assert store.numbers() == [1]


SERVICES = "workers = {}\nvirtual_service = []\n"


def test_the_file_as_it_was_taken_gives_way_to_what_was_committed_since(tmp_path: Path) -> None:
    """Also where the history names another file of the same path: it is that of both boxes of a pair."""
    store, file = VersionStore(tmp_path), tmp_path / "lbfast.toml"
    file.write_text(SERVICES.format(1))
    note_taken(tmp_path, str(file), file.read_text())
    store.add(Version(1, "", "root", "given at start", str(file)), SERVICES.format(2))
    store.add(made(2), SERVICES.format(3))
    chosen, note = choose_first(load(file), str(file), store)
    assert chosen.text == SERVICES.format(3)
    assert "version 2 runs, as before" in note
    file.write_text(SERVICES.format(4))
    assert choose_first(load(file), str(file), store)[0].text == SERVICES.format(4)


def test_a_state_directory_of_an_earlier_release_knows_by_its_history(tmp_path: Path) -> None:
    store, file = VersionStore(tmp_path), tmp_path / "lbfast.toml"
    file.write_text(SERVICES.format(1))
    assert is_as_taken(tmp_path, str(file), file.read_text()) is None
    store.add(Version(1, "", "root", "given at start", str(file)), SERVICES.format(1))
    store.add(made(2), SERVICES.format(3))
    assert choose_first(load(file), str(file), store)[0].text == SERVICES.format(3)
    file.write_text(SERVICES.format(4))
    assert choose_first(load(file), str(file), store)[0].text == SERVICES.format(4)


def test_a_file_that_was_taken_makes_no_version_of_its_own_in_the_history_of_a_pair(
    store: VersionStore, tmp_path: Path
) -> None:
    """The versions are those of the other box, which was started with another file."""
    ran(store, A, WEB)
    note_taken(tmp_path, "/own", "o = 1")
    assert adopt_text(store, "w = 1", made(0, GIVEN, "/own")) == (2, None)
    assert adopt_text(store, "w = 1", made(0, GIVEN, "/third")) == (3, None)
