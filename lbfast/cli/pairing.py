"""The verbs of the pair."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lbfast.cli import out
from lbfast.cli.clean import clean
from lbfast.cli.errors import OK, BadUsage
from lbfast.cli.options import Json, Reason
from lbfast.cli.talk import ask

NOT_READY = 1
_IGNORED = (
    ("forged", "forged"),
    ("foreign", "of another version"),
    ("replayed", "replayed"),
    ("duplicate", "doubled by another path"),
    ("reordered", "overtaken"),
)
PasswordFile = Annotated[
    Path | None, Parameter(name="--password-file", help="A file whose first line is the password. Default: asked for.")
]
Force = Annotated[bool, Parameter(name="--force", negative="", help="Also when the check beforehand objects.")]


def status(*, json: Json = False) -> int:
    """Role, state and readiness of this box; exit code 0 when all is well, 1 when not."""
    found = ask("ha_status")
    if json:
        out.print_json(found)
    else:
        for line in render_status(found):
            out.line(line)
    return OK if found["role"] == "standalone" or found["ready"] else NOT_READY


def pair(
    *,
    local: Annotated[str, Parameter(name="--local", help="Address of this box that the peer reaches.")],
    peer: Annotated[str, Parameter(name="--peer", help="Address of the box that becomes the secondary.")],
    password_file: PasswordFile = None,
    overwrite: Annotated[
        bool, Parameter(name="--overwrite", negative="", help="The peer's own virtual services may go.")
    ] = False,
) -> int:
    """Make a clustered pair: this box becomes the primary, the peer the secondary."""
    password = read_password(password_file, f"Password of {peer}: ")
    out.line(f"Attempting to pair {local} with {peer} ...")
    done = ask("ha_pair", 60.0, local=local, peer=peer, password=password, overwrite=overwrite)
    out.line(f"primary    {clean(done['local'])}  certificate {done['fingerprint']}")
    out.line(f"secondary  {clean(done['peer'])}  certificate {clean(done['peer_fingerprint'])}")
    return OK


def unpair(*, force: Force = False) -> int:
    """Break the clustered pair; both boxes keep their configuration, the active one the addresses."""
    done = ask("ha_unpair", 90.0, force=force)
    told = "it was told" if done["peer_told"] else "it was NOT told: unpair it there too"
    out.line(f"no longer paired with {clean(done['peer'])}; {told}")
    return OK


def takeover(*, reason: Reason = None, force: Force = False) -> int:
    """Make this box the active one, after a check that it is ready to."""
    done = ask("ha_takeover", 90.0, reason=reason, force=force)
    out.line(f"this box is {done['state']} now; it took {done['took_ms']} ms")
    return OK


def maintenance(state: Annotated[str, Parameter(name="on|off")], /, *, reason: Reason = None) -> int:
    """While on, this box takes no addresses; an active one hands them over first."""
    if state not in ("on", "off"):
        raise BadUsage(f"maintenance is on or off, got {state!r}")
    ask("ha_maintenance", on=state == "on", reason=reason)
    out.line(f"maintenance is {state}")
    return OK


def path(
    what: Annotated[str, Parameter(name="add|remove")],
    local: Annotated[str, Parameter(name="LOCAL")],
    peer: Annotated[str, Parameter(name="PEER")],
    /,
) -> int:
    """Add or remove a further way of the heartbeats: an address of this box, and the peer's at the other end."""
    if what not in ("add", "remove"):
        raise BadUsage(f"a path is added or removed: add or remove, got {what!r}")
    done = ask("ha_path", what=what, local=local, peer=peer)
    for ours, its in done["paths"]:
        out.line(f"path {clean(ours)} - {clean(its)}")
    out.line(f"that is so on this box; on the peer: lbfast ha path {what} {clean(peer)} {clean(local)}")
    return OK


def password(*, password_file: PasswordFile = None) -> int:
    """Set the password with which another box may make this one its secondary."""
    ask("ha_password", password=read_password(password_file, "New pairing password: "))
    out.line("the pairing password is set; this box answers a pairing on its replication port")
    return OK


def read_password(file: Path | None, prompt: str) -> str:
    """From the file's first line, or typed."""
    if file is not None:
        try:
            found = file.read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise BadUsage(f"{file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    elif sys.stdin.isatty():
        found = getpass.getpass(prompt)
    else:
        raise BadUsage("there is no terminal to ask for the password on; give --password-file")
    if not found:
        raise BadUsage("the password is empty")
    return found


def render_status(found: dict[str, Any]) -> list[str]:
    """For people."""
    if found["role"] == "standalone":
        return ["standalone: " + "; ".join(map(clean, found["reasons"]))]
    peer, replication = found["peer"], found["replication"]
    verdict = "yes" if found["ready"] else "no, because " + "; ".join(map(clean, found["reasons"]))
    heard = "heard" if peer["heard"] else "NOT heard"
    lines = [
        f"{found['role']} {found['local']}: {found['state']}, level {found['level']} of 4",
        f"peer {peer['address']}: {heard}, {peer['standing'] or 'unknown'}, level {peer['level']} of 4",
        f"ready to take over: {verdict}",
    ]
    if replication["linked"]:
        synced = "in step" if replication["synced"] else "resync under way"
        lag = f"lag {replication['lag_entries']} entries, {replication['lag_ms']} ms"
        lines.append(f"replication: {synced}, {lag}")
    else:
        lines.append(f"replication: {clean(replication['trouble'])}")
    if found["maintenance"]:
        lines.append(f"in maintenance by {clean(found['maintenance']['by'])}: {clean(found['maintenance']['reason'])}")
    lines += [f"differs: {clean(difference)}" for difference in found["differences"]]
    for path in found["paths"]:
        state = "heard" if path["heard"] else "silent"
        via = f" by way of {path['via']}" if path.get("via") else ""
        lines.append(f"path {path['local']} - {path['peer']}{via}: {state} {clean(path['trouble'])}".rstrip())
    return [*lines, *_render_heartbeats(found["timing"], found["heartbeats"])]


def _render_heartbeats(timing: dict[str, Any], counts: dict[str, Any]) -> list[str]:
    """What interval and missed come to, and what has become of heartbeats since the ha process started."""
    ignored = ", ".join(f"{counts[name]} {word}" for name, word in _IGNORED)
    return [
        f"takeover: {timing['takeover_least_ms']} to {timing['takeover_most_ms']} ms after the active box dies "
        f"(a heartbeat every {timing['interval_ms']} ms, dead after {timing['dead_ms']} ms without one)",
        f"heartbeats: {counts['accepted']} accepted; ignored: {ignored}",
        f"delays: {counts['own_late']} here, at most {counts['own_late_most_ms']} ms; "
        f"{counts['peer_late']} of the peer, at most {counts['peer_late_most_ms']} ms",
    ]
