"""The verbs of the candidate: show, diff, plan, set, load, commit, discard."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural, when
from lbfast.cli.committing import File, Removed, removed_policy, seconds_of, show_done, show_plan, text_of
from lbfast.cli.errors import OK, BadConfig
from lbfast.cli.options import Json, Reason

WAIT_S = 180.0

OfService = Annotated[str | None, Parameter(name="--service", help="The virtual service to change.")]
OfReal = Annotated[str | None, Parameter(name="--real", help="Its real server to change.")]
Key = Annotated[str, Parameter(name="KEY", help="A key of the configuration: health_check.interval")]
Value = Annotated[
    str,
    Parameter(
        name="VALUE", help="As the file has it, quotes can be left out; - takes the key out.", allow_leading_hyphen=True
    ),
]


def show(*, json: Json = False) -> int:
    """What is edited and not yet committed: who changed what, and the text."""
    result = talk.ask("candidate")
    if json:
        out.print_json(result)
        return OK
    state = plural(len(result["changes"]), "change") if result["is_changed"] else "no changes"
    outdated = f"; version {result['version']} was committed since" if result["is_outdated"] else ""
    out.line(f"candidate on version {result['base']}: {state}{outdated}")
    for change in result["changes"]:
        out.line(f"  {when(change['at'])}  {clean(change['by'])}: {clean(change['text'])}")
    return OK


def diff(*, json: Json = False) -> int:
    """The candidate against the running configuration."""
    result = talk.ask("candidate_diff")
    if json:
        out.print_json(result)
        return OK
    for line in result["lines"]:
        out.line(clean(line))
    return OK


def plan(*, removed: Removed = "cut", json: Json = False) -> int:
    """The steps of a commit of the candidate, and what clients would notice."""
    result = talk.ask("candidate_plan", WAIT_S, **removed_policy(removed))
    if json:
        out.print_json(result)
        return OK
    show_plan(result)
    return OK


def set_key(key: Key, value: Value, /, *, service: OfService = None, real: OfReal = None, json: Json = False) -> int:
    """Set or take out one key of a virtual service, a real server, or (without both) of the whole."""
    settings: Any = None if value == "-" else _value(value)
    for part in reversed(key.split(".")):
        settings = {part: settings}
    operation: dict[str, Any] = {"op": "change_global", "settings": settings}
    if service is not None:
        operation = {"op": "change_service", "service": service, "settings": settings}
    if real is not None:
        operation |= {"op": "change_real", "real": real}
    return _edit([operation], json)


def load(file: File, /, *, json: Json = False) -> int:
    """Make a file the candidate; nothing is committed yet."""
    return _edit([{"op": "replace", "text": text_of(file)["text"]}], json)


def commit(
    *,
    confirm: Annotated[
        str | None, Parameter(name="--confirm", help="Revert by itself unless confirmed, e.g. 5m.")
    ] = None,
    reason: Reason = None,
    removed: Removed = "cut",
    overwrite: Annotated[
        bool, Parameter(name="--overwrite", negative="", help="Also when another version was committed since.")
    ] = False,
    json: Json = False,
) -> int:
    """Make the candidate the running configuration, live."""
    args = {"reason": reason, "confirm": seconds_of(confirm), "overwrite": overwrite, **removed_policy(removed)}
    result = talk.ask("candidate_commit", WAIT_S, **args)
    if json:
        out.print_json(result)
        return OK
    show_done(result)
    return OK


def discard() -> int:
    """Throw the candidate's changes away."""
    talk.ask("candidate_discard")
    out.line("the candidate is the running configuration again")
    return OK


def _edit(operations: list[dict[str, Any]], json: bool) -> int:
    result = talk.ask("candidate_edit", WAIT_S, operations=operations)
    if json:
        out.print_json(result)
    if not result["accepted"]:
        raise BadConfig("\n".join(clean(it["message"]) for it in result["problems"]))
    for line in result["lines"] if not json else ():
        out.line(f"{clean(line)}; to do it: lbfast candidate commit")
    return OK


def _value(text: str) -> Any:
    """What TOML would read; else the text itself, so that words need no quotes within quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
