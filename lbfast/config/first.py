"""Which configuration a start runs: the file, or what was committed after the file was last read."""

from __future__ import annotations

from dataclasses import replace

from lbfast.config.errors import ConfigError
from lbfast.config.own import with_kept
from lbfast.config.store import Loaded, parse
from lbfast.config.taken import is_as_taken
from lbfast.config.versions import GIVEN, Version, VersionStore


def choose_first(loaded: Loaded, file: str, store: VersionStore) -> tuple[Loaded, str]:
    """A commit by web, API or command line survives a restart, although nobody writes to the operator's file: as long
    as the file says what it said when it was last taken, the newest version runs.  A file that was edited since wins,
    and so does another one than that of the last start.  ``file`` is its absolute path.  The second is a note for the
    events.
    """
    newest = store.newest()
    as_before = why_no_news(store, file, loaded.text, newest)
    text = store.text(newest)
    if as_before is None:
        return loaded, ""
    if text == loaded.text:
        return _with_own(loaded, store, newest), ""
    try:
        kept = parse(text, f"version {newest}") if text is not None else None
    except ConfigError as error:
        return loaded, f"version {newest}, which ran last, cannot be used any more, {file} runs: {error}"
    if kept is None:
        return loaded, f"version {newest}, which ran last, cannot be read, {file} runs"
    return _with_own(kept, store, newest), as_before


def _with_own(kept: Loaded, store: VersionStore, number: int) -> Loaded:
    """A version may be the peer's: what is each box's own is as it was here."""
    return replace(kept, config=with_kept(kept.config, store.directory.parent, number))


def why_no_news(store: VersionStore, file: str, text: str, runs: int) -> str | None:
    """What operators are told when a file does not count, as it has not been edited; None when it does.

    The history may be another box's, which has the same in common with this one, but not the file.
    """
    known, taken = is_as_taken(store.directory.parent, file, text), taken_unchanged(store, file, text)
    if known is False or (known is None and taken is None):
        return None
    since = f"since version {taken.number}" if taken else "since it was last taken"
    return f"version {runs} runs, as before: {file} has not been edited {since}"


def taken_unchanged(store: VersionStore, file: str, text: str) -> Version | None:
    """The version that took this file last, if it still says the same and no start was given another one since."""
    versions = store.all()
    taken = next((version for version in versions if version.file == file), None)
    if taken is None or store.text(taken.number) != text:
        return None
    started = next((version for version in versions if version.reason == GIVEN), taken)
    return taken if started.number <= taken.number else None
