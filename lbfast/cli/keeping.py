"""The verbs of what is kept: backup, restore, support, logs, series, availability, alerts."""

from __future__ import annotations

import base64
import getpass
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural, when
from lbfast.cli.committing import seconds_of
from lbfast.cli.errors import OK, BadUsage, Refused
from lbfast.cli.event_lines import event_line
from lbfast.cli.options import Json, Reason
from lbfast.model.durations import parse_duration

WAIT_S: Final = 180.0
PIECE: Final = 384 * 1024
MOST_FILE: Final = 64 << 20

PassphraseFile = Annotated[
    Path | None, Parameter(name="--passphrase-file", help="File that holds the passphrase; - asks for it.")
]
NewFile = Annotated[Path, Parameter(name="FILE", help="The file to make.")]
OldFile = Annotated[Path, Parameter(name="FILE", help="A backup.")]
Range = Annotated[str, Parameter(name="--range", help="How far back: 1h, 7d, 365d.")]
OnlyService = Annotated[str | None, Parameter(name="--service", help="Only this virtual service.")]
OnlyReal = Annotated[str | None, Parameter(name="--real", help="Only this real server.")]


def backup(
    file: NewFile, /, *, passphrase_file: PassphraseFile = None, reason: Reason = None, json: Json = False
) -> int:
    """Save configuration, ids, admin state, versions, users and certificates to one file."""
    result = talk.ask("backup", WAIT_S, passphrase=_passphrase(passphrase_file), reason=reason)
    _fetch("backup", result["name"], file)
    talk.ask("file_delete", kind="backup", name=result["name"])
    if json:
        out.print_json(result)
        return OK
    kind = "encrypted" if result["encrypted"] else "not encrypted: keep it as safe as the appliance"
    out.line(f"{clean(file)}: {result['size']} bytes, {plural(len(result['files']), 'file')}, {kind}")
    out.line(f"sha256 {result['sha256']}")
    return OK


def restore(
    file: OldFile,
    /,
    *,
    dry_run: Annotated[bool, Parameter(name="--dry-run", negative="", help="Only say what would change.")] = False,
    passphrase_file: PassphraseFile = None,
    confirm: Annotated[
        str | None, Parameter(name="--confirm", help="Revert the configuration by itself, e.g. 5m.")
    ] = None,
    json: Json = False,
) -> int:
    """Bring back what a backup holds, whole or not at all."""
    name = f"restore-{secrets.token_hex(4)}.lbfast"
    seconds, passphrase = seconds_of(confirm), _passphrase(passphrase_file)
    _put(name, file)
    try:
        result = talk.ask("restore", WAIT_S, name=name, passphrase=passphrase, trial=dry_run, confirm=seconds)
    finally:
        talk.ask("file_delete", kind="backup", name=name)
    if json:
        out.print_json(result)
        return OK
    _show_restore(result)
    return OK


def _show_restore(result: dict[str, Any]) -> None:
    about = result["about"]
    out.line(
        f"backup of {clean(about.get('at', '?'))} by {clean(about.get('by', '?'))}, lbfast {clean(about['lbfast'])}"
    )
    for line in result["lines"] or ["the configuration is the same"]:
        out.line(clean(line))
    for step in result["plan"]["steps"]:
        out.line(f"- {clean(step['text'])}")
    for line in result["plan"]["impact"]["lines"] if result["plan"]["steps"] else ():
        out.line(clean(line))
    if not result["restored"]:
        out.line("nothing was changed: this was a dry run")
        return
    out.line(f"restored; version {result['commit']['version']} runs")
    for note in result["notes"]:
        out.line(clean(note))


def support(
    file: NewFile,
    /,
    *,
    mask: Annotated[
        bool, Parameter(name="--mask", negative="", help="Stand-ins in place of client addresses.")
    ] = False,
) -> int:
    """Write an archive for those who help: versions, configuration without secrets, logs, tables, kernel facts."""
    result = talk.ask("support", WAIT_S, masked=mask)
    _fetch("support", result["name"], file)
    talk.ask("file_delete", kind="support", name=result["name"])
    masked = ", client addresses masked" if mask else ""
    out.line(f"{clean(file)}: {result['size']} bytes, {plural(len(result['files']), 'file')}{masked}")
    return OK


def logs(
    *,
    kind: Annotated[str | None, Parameter(name="--kind", help="connections, health, audit or system.")] = None,
    since: Annotated[str | None, Parameter(name="--since", help="A time, such as 2026-11-24T14:00.")] = None,
    until: Annotated[str | None, Parameter(name="--until", help="A time.")] = None,
    client: Annotated[str | None, Parameter(name="--client", help="An address or a network.")] = None,
    service: OnlyService = None,
    real: OnlyReal = None,
    reason: Annotated[str | None, Parameter(name="--reason", help="Of a choice, or how it ended.")] = None,
    text: Annotated[str | None, Parameter(name="--text", help="Anything that the record holds.")] = None,
    limit: Annotated[int, Parameter(name="--limit", help="At most so many.")] = 200,
    json: Json = False,
) -> int:
    """Search the kept log, the newest last."""
    wanted = {"kind": kind, "since": since, "until": until, "client": client, "service": service, "real": real}
    result = talk.ask("logs", WAIT_S, **wanted, reason=reason, text=text, limit=limit)
    if json:
        out.print_json(result)
        return OK
    for record in reversed(result["records"]):
        out.line(event_line(record))
    return OK


def series(*, service: OnlyService = None, real: OnlyReal = None, range: Range = "1h", json: Json = False) -> int:
    """Graphs as figures: of a real server, a virtual service, or without both the host."""
    result = talk.ask("series", WAIT_S, service=service, real=real, range=_range(range))
    if json:
        out.print_json(result)
        return OK
    out.line("  ".join(["time               ", *(f"{name:>12}" for name in result["metrics"])]))
    for at, *values in result["points"]:
        if any(value is not None for value in values):
            shown = (f"{'' if value is None else f'{value:.1f}':>12}" for value in values)
            out.line("  ".join([_local(at), *shown]))
    return OK


def availability(*, range: Range = "30d", json: Json = False) -> int:
    """How much of the time each real server was up, by its health checks."""
    result = talk.ask("availability", WAIT_S, range=_range(range))
    if json:
        out.print_json(result)
        return OK
    for it in result["real_servers"]:
        share = "unknown" if it["availability"] is None else f"{it['availability']:.3f} %"
        out.line(f"{share:>10}  {clean(it['service'])} / {clean(it['real'])}")
    return OK


def alerts_show(*, json: Json = False) -> int:
    """What came of the last alerts of each way."""
    result = talk.ask("alerts")
    if json:
        out.print_json(result)
        return OK
    for it in result["ways"]:
        sent = f"last sent {when(it['sent_at'])}" if it["sent_at"] else "nothing sent yet"
        fault = f", {'still failing' if it['failing'] else 'failed'} at {when(it['error_at'])}: {clean(it['error'])}"
        out.line(f"{it['way']}: {sent}{fault if it['error'] else ''}")
    if not result["ways"]:
        out.line("nobody is told: [alerts] has no email, webhook, syslog or syslog_server")
    return OK


def alerts_test(*, json: Json = False) -> int:
    """Send a test alert by every configured way."""
    result = talk.ask("alerts_test", WAIT_S)
    if json:
        out.print_json(result)
    for way in result["ways"] if not json else ():
        out.line(f"{way['way']}: {'sent' if way['ok'] else clean(way['error'])}")
    if not all(way["ok"] for way in result["ways"]):
        raise Refused("not every way works")
    return OK


# --- helpers --------------------------------------------------------------------------------------


def _passphrase(file: Path | None) -> str | None:
    if file is None:
        return None
    text = getpass.getpass("Passphrase: ") if str(file) == "-" else file.read_text(encoding="utf-8").rstrip("\n")
    if not text:
        raise BadUsage("the passphrase is empty")
    return text


def _range(text: str) -> int:
    found = text[:-1]
    if text.endswith("d") and found.isdigit():
        return int(found) * 86_400  # longer than a duration of the configuration may be
    try:
        return parse_duration(text) // 1_000
    except ValueError:
        raise BadUsage(f"--range takes a time such as 1h or 30d, got {clean(text)}") from None


def _local(at: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _fetch(kind: str, name: str, file: Path) -> None:
    """A file of lbfast's, written beside the wanted name and then renamed: never half a one."""
    part = file.with_name(f".{file.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as stream:
            offset: int | None = 0
            while offset is not None:
                piece = talk.ask("file_get", WAIT_S, kind=kind, name=name, offset=offset)
                stream.write(base64.b64decode(piece["data"]))
                offset = piece["next"]
            stream.flush()
            os.fsync(fd)
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _put(name: str, file: Path) -> None:
    size = file.stat().st_size
    if size > MOST_FILE:
        raise BadUsage(f"{clean(file)} has {size} bytes, a backup at most {MOST_FILE}")
    with file.open("rb") as stream:
        offset = 0
        while True:
            piece = stream.read(PIECE)
            is_last = offset + len(piece) >= size
            data = base64.b64encode(piece).decode()
            talk.ask("file_put", WAIT_S, kind="backup", name=name, offset=offset, data=data, last=is_last)
            offset += len(piece)
            if is_last:
                return
