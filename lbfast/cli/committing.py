"""The verbs of live change: plan, commit, confirm, revert, history, diff."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural, when
from lbfast.cli.errors import OK, BadUsage
from lbfast.cli.options import Json, Reason
from lbfast.model.durations import parse_duration

MOST_BYTES = 1_000_000  # a request of the control protocol has at most 1 MiB
WAIT_S = 180.0  # listeners, neighbours, IPv6 detection, then the workers

File = Annotated[Path, Parameter(name="FILE", help="The configuration, a TOML file.")]
Removed = Annotated[
    str,
    Parameter(
        name="--removed",
        help="Connections of removed real servers: cut them, drain (they end by themselves), or a time such as 30m.",
    ),
]
Against = Annotated[int | None, Parameter(name="--against", help="Refuse if another version than this one runs.")]
VersionNumber = Annotated[int | None, Parameter(name="VERSION", help="A number of `lbfast history`.")]


def plan(file: File, /, *, removed: Removed = "cut", against: Against = None, json: Json = False) -> int:
    """What a commit of this file would do: the steps in order, and what clients would notice."""
    result = talk.ask("plan", WAIT_S, **text_of(file), **removed_policy(removed), against=against)
    if json:
        out.print_json(result)
        return OK
    show_plan(result)
    out.line(f"against version {result['version']}; to do it: lbfast commit --against {result['version']} FILE")
    return OK


def commit(
    file: File,
    /,
    *,
    confirm: Annotated[
        str | None, Parameter(name="--confirm", help="Revert by itself unless confirmed within this time, e.g. 5m.")
    ] = None,
    reason: Reason = None,
    removed: Removed = "cut",
    against: Against = None,
    json: Json = False,
) -> int:
    """Make this file the running configuration, live; whole effect or none."""
    args = {"reason": reason, **removed_policy(removed), "against": against, "confirm": seconds_of(confirm)}
    result = talk.ask("commit", WAIT_S, **text_of(file), **args)
    if json:
        out.print_json(result)
        return OK
    show_done(result)
    return OK


def confirm() -> int:
    """Keep what was committed with --confirm."""
    out.line(f"version {talk.ask('confirm')['version']} stands")
    return OK


def revert(version: VersionNumber = None, /, *, reason: Reason = None, json: Json = False) -> int:
    """Commit an earlier version again; without a number the one before."""
    result = talk.ask("revert", WAIT_S, version=version, reason=reason)
    if json:
        out.print_json(result)
        return OK
    show_done(result)
    return OK


def history(*, json: Json = False) -> int:
    """The versions that ran, newest first: who, when, why, what differed."""
    result = talk.ask("history")
    if json:
        out.print_json(result)
        return OK
    for version in result["versions"]:
        why = f": {clean(version['reason'])}" if version["reason"] else ""
        running = "  (running)" if version["running"] else ""
        out.line(f"{version['number']:>6}  {when(version['at'])}  {clean(version['by'])}{why}{running}")
        for change in version["changes"]:
            out.line(f"        {clean(change)}")
    if result["unconfirmed"]:
        out.line(
            f"version {result['version']} waits to be confirmed until {when(result['unconfirmed']['deadline_at'])}"
        )
    return OK


def diff(
    before: Annotated[int | None, Parameter(name="A", help="A version; by default the one before.")] = None,
    after: Annotated[int | None, Parameter(name="B", help="Another; by default the running one.")] = None,
    /,
    *,
    json: Json = False,
) -> int:
    """What differs between two versions."""
    result = talk.ask("diff", before=before, after=after)
    if json:
        out.print_json(result)
        return OK
    for line in result["lines"]:
        out.line(clean(line))
    return OK


def text_of(file: Path) -> dict[str, str]:
    content = file.read_bytes()
    if len(content) > MOST_BYTES:
        raise BadUsage(f"{clean(file)}: {len(content)} bytes, expected a configuration of at most {MOST_BYTES}")
    try:
        return {"text": content.decode("utf-8-sig"), "file": os.path.abspath(file)}
    except UnicodeDecodeError as error:
        raise BadUsage(f"{clean(file)}: byte {error.start} is not UTF-8: save the file with that encoding") from None


def removed_policy(removed: str) -> dict[str, Any]:
    """``cut``, ``drain``, or a drain for a time."""
    if removed in ("cut", "drain"):
        return {"removed": removed}
    try:
        ms = parse_duration(removed)
    except ValueError:
        ms = -1
    if ms % 1_000 or not 0 <= ms <= parse_duration("24d"):
        raise BadUsage(f"--removed takes cut, drain or a time in whole seconds such as 30m, got {clean(removed)}")
    return {"removed": "drain", "cut_after": ms // 1_000}


def seconds_of(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        seconds = parse_duration(text) // 1_000
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 86_400:
        raise BadUsage(f"--confirm takes a time from 1s to 24h, such as 5m, got {clean(text)}")
    return seconds


def show_plan(result: dict[str, Any]) -> None:
    for warning in result["warnings"]:
        out.line(f"warning: {clean(warning)}")
    for step in result["steps"]:
        out.line(f"- {clean(step['text'])}")
    if not result["steps"]:
        out.line("nothing differs from what runs")
        return
    for line in result["impact"]["lines"]:
        out.line(clean(line))


def show_done(result: dict[str, Any]) -> None:
    show_plan(result)
    if result["version"] == result["before"]:
        return
    out.line(f"version {result['version']} runs ({plural(len(result['steps']), 'step')}); before: {result['before']}")
    if result["confirm_until"]:
        out.line(f"it is reverted at {when(result['confirm_until'])} unless you say: lbfast confirm")
