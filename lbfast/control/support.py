"""The support archive: what somebody who helps needs to see, without secrets, client addresses masked on request."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lbfast import __version__
from lbfast.control import reports
from lbfast.control.clients import connections, persistence_show
from lbfast.control.commits import Commits
from lbfast.control.engine import Engine, persistence_table
from lbfast.control.kept_log import KeptLog, LogFilter
from lbfast.control.masking import Mask
from lbfast.control.shelf import SUPPORT, Shelf

if TYPE_CHECKING:
    from collections.abc import Generator

MOST_RECORDS: Final = 20_000
MOST_ENTRIES: Final = 10_000
KERNEL_FILES: Final = (
    "/proc/version", "/proc/meminfo", "/proc/loadavg", "/proc/net/sockstat", "/proc/net/snmp", "/proc/net/dev",
    "/proc/net/netstat", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/tcp_available_congestion_control", "/proc/sys/fs/file-nr", "/proc/sys/fs/pipe-user-pages-soft",
    "/etc/os-release",
)  # fmt: skip
COMMANDS: Final = {
    "addresses.txt": ("ip", "-o", "address"),
    "routes.txt": ("ip", "route"),
    "sockets.txt": ("ss", "-Htanpi", "state", "listening"),
}
_SECRET: Final = re.compile(
    r'(?im)^(\s*[\w.-]*(?:password|passphrase|secret|token|key|webhook)[\w.-]*\s*=\s*)("""(?:.|\n)*?"""|.*)$'
)
_URL: Final = re.compile(r"(https?://)[^\s\"'/]*@")


class Support:
    """Makes archives on the shelf."""

    def __init__(self, engine: Engine, commits: Commits, shelf: Shelf, kept_log: KeptLog) -> None:
        self._engine = engine
        self._commits = commits
        self._shelf = shelf
        self._kept_log = kept_log

    async def create(self, by: str, *, is_masked: bool) -> dict[str, Any]:
        """An archive on the shelf."""
        now = self._engine.clock.wall()
        files = await self._gather()
        files["about.json"] = _json(
            {"lbfast": __version__, "at": now.isoformat(timespec="seconds"), "by": by, "clients_masked": is_masked}
        )
        change = Mask(os.urandom(16), self._own_addresses()).text if is_masked else _as_it_is
        name = f"support-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1_000:03}.zip"
        return await asyncio.to_thread(self._write, name, files, change)

    async def _gather(self) -> dict[str, str]:
        """What only this process knows; the rest is read by the thread."""
        engine = self._engine
        files = {
            "overview.json": _json(reports.overview(engine)),
            "statistics.json": _json(reports.statistics(engine)),
            "version.json": _json(reports.version(engine)),
            "history.json": _json(self._commits.history()),
            "events.jsonl": "\n".join(map(json.dumps, engine.events.newest(1_000))),
            "lbfast.toml": without_secrets(self._commits.store.text(self._commits.version) or ""),
        }
        tables: dict[str, Any] = {}
        for service in engine.catalog.services:
            found: dict[str, Any] = {"connections": await _all(connections(engine, service, None))}
            if persistence_table(engine.shared, service) is not None:
                found["persistence"] = await _all(persistence_show(engine, service, None, MOST_ENTRIES))
            tables[service.label] = found
            health = [reports.health(engine, service, real) for real in service.all_reals()]
            tables[service.label]["health"] = health
        return files | {"tables.json": _json(tables)}

    def _own_addresses(self) -> set[str]:
        """Of virtual services and real servers: those are not clients."""
        services = self._engine.catalog.services
        return {service.address for service in services} | {real.address for _, real in self._engine.catalog.pairs()}

    def _write(self, name: str, files: dict[str, str], change: Callable[[str], str]) -> dict[str, Any]:
        records = self._kept_log.find(LogFilter(), MOST_RECORDS)["records"]
        files["log.jsonl"] = "\n".join(json.dumps(record, ensure_ascii=False) for record in reversed(records))
        files["processes.txt"] = _processes(self._engine.about.pid)
        files["platform.txt"] = f"{platform.platform()}\npython {platform.python_version()}\n"
        for path in KERNEL_FILES:
            files[f"kernel{path}"] = _read(path)
        for file, command in COMMANDS.items():
            files[f"kernel/{file}"] = _run(command)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, text in sorted(files.items()):
                archive.writestr(f"lbfast-support/{file}", change(text))
        self._shelf.write(SUPPORT, name, stream.getvalue())
        return {"name": name, "size": len(stream.getvalue()), "files": sorted(files)}


def without_secrets(text: str) -> str:
    """A text with whatever is called a password, secret, token or key taken out, and what URLs carry."""
    text = _SECRET.sub(r'\1"(removed)"', text)
    return _URL.sub(r"\1(removed)@", text)


def _as_it_is(text: str) -> str:
    return text


async def _all(steps: Generator[None, None, dict[str, Any]]) -> dict[str, Any]:
    """The result of a verb that works in steps, others coming first between two of them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: dict[str, Any] = end.value
            return result
        await asyncio.sleep(0)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n"


def _run(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}\n"
    return done.stdout + done.stderr


def _processes(supervisor: int) -> str:
    """Status and limits of every process of lbfast."""
    try:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    except OSError:
        children = []
    parts = []
    for pid in (str(supervisor), *children):
        parts += [f"== {pid}", _read(f"/proc/{pid}/status"), _read(f"/proc/{pid}/limits")]
    return "\n".join(parts)
