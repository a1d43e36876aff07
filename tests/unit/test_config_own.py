"""What is each box's own: kept whole, given to another version's text, changed only by an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbfast.config.first import choose_first
from lbfast.config.own import NAME, keep_own_settings, own_of, with_changes, with_kept
from lbfast.config.store import load, parse
from lbfast.config.taken import note_taken
from lbfast.config.versions import Version, VersionStore

OURS = """workers = 3
pin_workers = false
[log]
target = "syslog"
rate_interval = "5s"
[graphs]
keep_1m = "2d"
[web]
address = "10.0.0.1"
port = 9444
"""
THEIRS = 'workers = 2\nvirtual_service = []\n[web]\naddress = "10.0.0.2"\n'


def test_all_of_it_survives_and_nothing_else_does(tmp_path: Path) -> None:
    ours = parse(OURS + "[ha]\nmissed = 7\n").config
    keep_own_settings(tmp_path, ours, 2)
    found = with_kept(parse(THEIRS).config, tmp_path, 2)
    assert own_of(found) == own_of(ours)
    assert (found.web, found.log, found.graphs) == (ours.web, ours.log, ours.graphs)
    assert found.ha == parse(THEIRS).config.ha
    later = with_kept(parse(THEIRS).config, tmp_path, 3)
    assert later == parse(THEIRS).config, "a release that keeps nothing has committed since"


@pytest.mark.parametrize(
    "damage", ["", "[]", "{", "{}", '{"version": 1, "own": {"workers": "x"}}', '{"version": "x", "own": {}}']
)
def test_what_cannot_be_used_leaves_the_text(tmp_path: Path, damage: str) -> None:
    (tmp_path / NAME).write_text(damage)
    theirs = parse(THEIRS).config
    assert with_kept(theirs, tmp_path, 1) == theirs


def test_only_an_edit_changes_it() -> None:
    """The text that runs is the peer's: its [web] in the next text is no edit, another number of workers is."""
    before, after = parse(THEIRS).source.data, parse(THEIRS.replace("workers = 2", "workers = 4"))
    found = with_changes(after.config, parse(OURS).config, after.source.data, before)
    assert found.web == parse(OURS).config.web
    assert found.workers == 4


def test_a_start_runs_the_peers_version_with_what_is_ours(tmp_path: Path) -> None:
    store, file = VersionStore(tmp_path), tmp_path / "lbfast.toml"
    file.write_text(OURS)
    note_taken(tmp_path, str(file), OURS)
    store.add(Version(1, "", "root", "given at start", str(file)), OURS)
    store.add(Version(2, "", "the peer", "", "the peer"), THEIRS)
    keep_own_settings(tmp_path, load(file).config, 2)
    chosen, _ = choose_first(load(file), str(file), store)
    assert chosen.text == THEIRS
    assert own_of(chosen.config) == own_of(parse(OURS).config)
    file.write_text(OURS.replace("10.0.0.1", "10.0.0.3"))
    chosen, _ = choose_first(load(file), str(file), store)
    assert chosen.config.web is not None
    assert chosen.config.web.address == "10.0.0.3", "an edited file is this box's own"
