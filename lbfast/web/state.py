"""Everything that the pages and the API share: one object, made at start, passed down."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lbfast.model.appliance import WebSettings
from lbfast.web.audit import Audit
from lbfast.web.client import AsyncClient
from lbfast.web.keys import ApiKeys
from lbfast.web.languages import FOLDER as LANGUAGES_FOLDER
from lbfast.web.languages import Languages, read_languages, shipped
from lbfast.web.pair import PairingJob
from lbfast.web.sessions import Sessions
from lbfast.web.setup import SetupCode
from lbfast.web.store import Clock, now, open_store
from lbfast.web.throttle import Throttle
from lbfast.web.upgrades import Upgrades
from lbfast.web.users import Users

if TYPE_CHECKING:
    from lbfast.web.live import Live
    from lbfast.web.tls import Certificate

MOST_HASHES = 2  # at the same time: each takes 64 MiB
MOST_NOTES = 500


@dataclass
class WebState:
    """``client`` asks lbfast; the rest is the web interface's own."""

    client: AsyncClient
    settings: WebSettings
    folder: Path
    store: sqlite3.Connection
    users: Users
    sessions: Sessions
    keys: ApiKeys
    setup: SetupCode
    audit: Audit
    throttle: Throttle
    clock: Clock = now
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_HASHES))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    host: str = field(default_factory=socket.gethostname)
    notes: OrderedDict[str, list[tuple[str, str]]] = field(default_factory=OrderedDict)
    offers: OrderedDict[str, str] = field(default_factory=OrderedDict)  # second factors not proven yet, by session
    languages: Languages = field(default_factory=Languages)
    pairing: PairingJob = field(default_factory=PairingJob)
    upgrades: Upgrades = field(init=False)
    live: Live | None = None
    certificate: Certificate | None = None  # None: no TLS
    reload_certificate: Callable[[], None] | None = None  # takes the one on disk into use

    def __post_init__(self) -> None:
        self.upgrades = Upgrades(self.folder)

    def note(self, digest: str, kind: str, text: str) -> None:
        """Something to be said on the next page of a session: ``good``, ``bad`` or ``info``."""
        self.notes.setdefault(digest, []).append((kind, text))
        while len(self.notes) > MOST_NOTES:
            self.notes.popitem(last=False)

    def take_notes(self, digest: str) -> list[tuple[str, str]]:
        return self.notes.pop(digest, [])

    def close(self) -> None:
        self.store.close()


def open_state(settings: WebSettings, folder: Path, client: AsyncClient | None = None) -> WebState:
    """The state of a web process, or of a test; OSError or sqlite3.Error when the folder cannot be used."""
    store = open_store(folder)
    users = Users(store)
    users.ensure_first()
    return WebState(
        client or AsyncClient(),
        settings,
        folder,
        store,
        users,
        Sessions(store),
        ApiKeys(store),
        SetupCode(store, folder),
        Audit(folder),
        Throttle(time.monotonic),
        languages=shipped().joined(read_languages(folder / LANGUAGES_FOLDER)),
    )
