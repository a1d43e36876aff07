"""Backups: made now or on schedule, looked into, and restored whole or not at all.

A restore commits the configuration first: that is the one part that can be refused.  Before it, a journal and the files
lie on disk; a control process that starts and finds the journal finishes what has stood, or forgets what has not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lbfast import __version__
from lbfast.config.files import write_atomically
from lbfast.control.backup_file import Backup, BackupError, is_encrypted, pack, unpack
from lbfast.control.backup_parts import CONFIGURATION, apply_parts, check_parts, collect_files, merge_ids
from lbfast.control.commits import Commits, Report, Wish
from lbfast.control.difference import differing_lines
from lbfast.control.protocol import ControlError
from lbfast.control.shelf import BACKUP, Shelf

if TYPE_CHECKING:
    from lbfast.control.engine import Engine
    from lbfast.model.upkeep import BackupSettings

JOURNAL: Final = "restore.json"
STAGED: Final = "restore.zip"
AUTO: Final = "auto-"
SUFFIX: Final = ".lbfast"
LOOK_S: Final = 30.0


class Backups:
    """One at a time."""

    def __init__(
        self, engine: Engine, commits: Commits, settings: BackupSettings, shelf: Shelf, state_dir: Path
    ) -> None:
        self._engine = engine
        self._commits = commits
        self._settings = settings
        self._shelf = shelf
        self._state_dir = state_dir
        self._lock = asyncio.Lock()
        self._failure = ""  # of the scheduled backup, until one is made
        self._failed_at: str | None = None

    def replace(self, settings: BackupSettings) -> None:
        self._settings = settings

    # --- making ---------------------------------------------------------------

    async def create(self, by: str, passphrase: str = "", reason: str = "", prefix: str = "") -> Report:
        """A backup of everything that makes this appliance what it is."""
        now = self._engine.clock.wall()
        name = f"{prefix}{now:%Y%m%d-%H%M%S}-{now.microsecond // 1_000:03}{SUFFIX}"
        about = {"lbfast": __version__, "at": now.isoformat(timespec="seconds"), "by": by, "reason": reason}
        version = self._commits.version
        async with self._lock:
            return await asyncio.to_thread(self._make, name, about | {"configuration": version}, passphrase)

    def _make(self, name: str, about: dict[str, Any], passphrase: str) -> Report:
        text = self._commits.store.text(int(about["configuration"]))
        if text is None:
            raise ControlError("internal", f"version {about['configuration']} is not kept: there is nothing to save")
        files = collect_files(self._state_dir, text)
        content = pack(Backup(about, files), passphrase)
        self._shelf.write(BACKUP, name, content)
        return {
            "name": name,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "encrypted": bool(passphrase),
            "files": sorted(files),
        }

    # --- restoring ------------------------------------------------------------

    async def restore(
        self, name: str, by: str, passphrase: str = "", *, is_trial: bool, confirm: int | None = None
    ) -> Report:
        """What a restore would change; unless it is a trial, it is then done."""
        async with self._lock:
            content, backup = await asyncio.to_thread(self._open, name, passphrase)
            digest = hashlib.sha256(content).hexdigest()[:16]
            text = backup.text(CONFIGURATION)
            wish = Wish(text, f"backup {digest}", by, f"restored from {name}", confirm=confirm)
            report = {**self._look(backup, text), "plan": self._commits.plan(wish), "restored": False}
            if is_trial:
                return report
            await asyncio.to_thread(self._stage, backup, digest, by)
            try:
                report["commit"] = await self._commits.commit(wish)
            except BaseException:
                self._forget()
                raise
            notes = self._finish(backup)
            self._engine.announce(f"backup {name} of {backup.about.get('at')} restored by {by}")
            return report | {"restored": True, "notes": notes}

    def _open(self, name: str, passphrase: str) -> tuple[bytes, Backup]:
        content = self._shelf.found(BACKUP, name).read_bytes()
        try:
            backup = unpack(content, passphrase)
            check_parts(backup)
            return content, backup
        except BackupError as error:
            raise ControlError("refused", f"{name}: {error}") from None

    def _look(self, backup: Backup, text: str) -> Report:
        running = self._commits.store.text(self._commits.version) or ""
        lines = differing_lines(running, text, f"version {self._commits.version}", "backup")
        return {"about": dict(backup.about), "files": sorted(backup.files), "lines": lines}

    def _stage(self, backup: Backup, digest: str, by: str) -> None:
        """From here on a kill is repaired by the next control process."""
        try:
            write_atomically(self._state_dir / STAGED, pack(backup), mode=0o600)
            journal = {"digest": digest, "by": by}
            write_atomically(self._state_dir / JOURNAL, json.dumps(journal).encode(), mode=0o600)
            merge_ids(self._state_dir, backup)
        except OSError as error:
            self._forget()
            raise ControlError("internal", f"nothing was restored: the state directory refused: {error}") from error

    def _finish(self, backup: Backup) -> list[str]:
        """Everything beside the configuration.  Each part can be done twice."""
        try:
            notes = apply_parts(self._engine, self._commits.running, self._state_dir, backup)
        except OSError as error:
            message = f"the configuration is restored, the rest not yet ({error}); it is tried again at the next start"
            raise ControlError("internal", message) from error
        self._forget()
        return notes

    def _forget(self) -> None:
        (self._state_dir / JOURNAL).unlink(missing_ok=True)
        (self._state_dir / STAGED).unlink(missing_ok=True)

    def _resume(self) -> None:
        """A restore that an earlier control process did not finish."""
        try:
            journal = json.loads((self._state_dir / JOURNAL).read_bytes())
            digest = str(journal["digest"])
            backup = unpack((self._state_dir / STAGED).read_bytes())
        except FileNotFoundError:
            self._forget()
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._engine.announce(f"an unfinished restore cannot be read and is forgotten: {error}")
            self._forget()
            return
        running = self._commits.store.get(self._commits.version)
        if running is None or running.file != f"backup {digest}":
            self._forget()
            self._engine.announce("a restore was interrupted before its configuration stood: nothing was restored")
            return
        self._finish(backup)
        self._engine.announce("a restore that was interrupted is now complete")

    # --- schedule -------------------------------------------------------------

    async def finish_and_repeat(self) -> None:
        """Resume a restore, then make backups when they are due."""
        try:
            self._resume()
        except (ControlError, OSError) as error:
            self._engine.announce(f"an unfinished restore stays unfinished: {error}")
        while True:
            try:
                if self._is_due(self._engine.clock.wall()):
                    await self._make_scheduled()
                    self._failure, self._failed_at = "", None
            except (ControlError, OSError, ValueError) as error:
                self._failed_at = self._engine.clock.now_iso()
                if str(error) != self._failure:
                    self._failure = str(error)
                    self._engine.announce(f"the scheduled backup failed: {error}", "process", failed="backup")
            await asyncio.sleep(LOOK_S)

    def _is_due(self, now: datetime) -> bool:
        if self._settings.every is None:
            return False
        newest = next((it for it in self._shelf.all(BACKUP) if it["name"].startswith(AUTO)), None)
        if newest is None:
            return True
        made = datetime.fromtimestamp(newest["modified"], now.tzinfo)
        # A clock that was set back must not stop the backups for good.
        return made > now or now - made >= timedelta(milliseconds=self._settings.every)

    async def _make_scheduled(self) -> None:
        settings = self._settings
        passphrase = ""
        if settings.passphrase_file is not None:
            passphrase = Path(settings.passphrase_file).read_text(encoding="utf-8").strip()
            if not passphrase:
                raise ValueError(f"{settings.passphrase_file} is empty")
        await self.create("lbfast", passphrase, "scheduled", AUTO)
        self._shelf.drop(BACKUP, settings.keep, lambda name: name.startswith(AUTO))

    def all(self) -> Report:
        backups = self._shelf.listed(BACKUP)
        for it in backups:
            with self._shelf.found(BACKUP, it["name"]).open("rb") as stream:
                it["encrypted"] = is_encrypted(stream.read(64))
            it["scheduled"] = it["name"].startswith(AUTO)
        return {"backups": backups, "schedule": self._schedule(backups)}

    def _schedule(self, backups: list[dict[str, Any]]) -> Report:
        """What is made by itself: when next, and what came of the last one."""
        settings = self._settings
        newest = next((it["modified"] for it in backups if it["scheduled"]), None)
        next_at = None
        if settings.every is not None:
            wall = self._engine.clock.wall()
            made = wall if newest is None else datetime.fromisoformat(newest)
            due = made if newest is None else made + timedelta(milliseconds=settings.every)
            next_at = max(due, wall).isoformat(timespec="seconds")
        return {
            "every_ms": settings.every,
            "keep": settings.keep,
            "encrypted": settings.passphrase_file is not None,
            "last_at": newest,
            "next_at": next_at,
            "error": self._failure,
            "error_at": self._failed_at,
        }
