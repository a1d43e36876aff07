"""Which configuration a start runs: the file, or what was committed after the file was last read."""

from __future__ import annotations

import os

from lbfast.config.errors import ConfigError
from lbfast.config.store import Loaded, parse
from lbfast.config.versions import VersionStore


def choose_first(loaded: Loaded, store: VersionStore) -> tuple[Loaded, str]:
    """A commit by web, API or command line survives a restart, although nobody writes to the operator's file: as long
    as the file says what it said when it was last taken, the newest version runs.  A file that was edited since wins.
    The second is a note for the events.
    """
    newest, file = store.newest(), os.path.abspath(loaded.file)
    taken = next((version for version in store.all() if version.file == file), None)
    if taken is None or taken.number == newest or store.text(taken.number) != loaded.text:
        return loaded, ""
    text = store.text(newest)
    try:
        kept = parse(text, f"version {newest}") if text is not None else None
    except ConfigError as error:
        return loaded, f"version {newest}, which ran last, cannot be used any more, {file} runs: {error}"
    if kept is None:
        return loaded, f"version {newest}, which ran last, cannot be read, {file} runs"
    return kept, f"version {newest} runs, as before: {file} has not been edited since version {taken.number}"
