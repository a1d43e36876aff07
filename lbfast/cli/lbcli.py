"""The vendor's command: lbcli --action add-vip --vip ... carries out one verb and says how it went."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from lbfast.cli.clean import clean
from lbfast.cli.errors import FAILED, OK, USAGE, Refused
from lbfast.control.client import Client, ControlError, ControlUnavailable
from lbfast.control.lbcli_run import API_SWITCH, run

WAIT_S: Final = 180.0
_USAGE: Final = "usage: lbcli --action ACTION [--option VALUE ...] [--json]; the actions are in docs/api.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Run and exit."""
    sys.exit(command(list(sys.argv[1:] if argv is None else argv)))


def command(words: list[str]) -> int:
    """The exit code: 0 done, 1 refused, 2 wrong command line."""
    if words in (["--help"], ["-h"]):
        print(_USAGE)
        return OK
    try:
        action = parse_words([word for word in words if word != "--json"])
    except ValueError as error:
        print(f"lbcli: {error}", file=sys.stderr)
        return USAGE
    as_json = "--json" in words or action.get("method") == "api"
    try:
        is_done, entries = _carry_out([action])
    except ControlUnavailable as error:
        print(f"lbcli: {clean(error)}", file=sys.stderr)
        return FAILED
    if as_json:
        print(json.dumps({"lbapi": [{"itteration": entries}]}))
    else:
        _show(entries[0])
    return OK if is_done else FAILED


def parse_words(words: list[str]) -> dict[str, str]:
    """The options of a command line; a second --vip of clone-vip is the clone, as the vendor's help has it."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise ValueError(f"expected an option such as --vip, found {word!r}; {_USAGE}")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"--{name} needs a value; {_USAGE}")
            value = rest.pop(0)
        if name == "vip" and "vip" in options:
            name = "clone"
        if name in options:
            raise ValueError(f"--{name} was given twice")
        options[name] = value
    if "action" not in options:
        raise ValueError(_USAGE)
    return options


def _carry_out(actions: list[dict[str, str]]) -> tuple[bool, list[dict[str, Any]]]:
    client = Client(timeout=WAIT_S)
    steps = run(actions)
    try:
        question = next(steps)
        while True:
            try:
                is_switch = question.verb == API_SWITCH
                answer = _switch(question.args) if is_switch else client.call(question.verb, **question.args)
            except ControlError as error:
                question = steps.throw(error)
            else:
                question = steps.send(answer)
    except StopIteration as end:
        outcome: tuple[bool, list[dict[str, Any]]] = end.value
        return outcome


def _switch(options: dict[str, Any]) -> dict[str, Any]:
    """On the console, whether lbfast runs or not; whoever may write to the state directory may."""
    from lbfast.cli.web_store import web_store, who  # only this verb needs them, and they take a while
    from lbfast.web.audit import Audit
    from lbfast.web.setup import SetupCode
    from lbfast.web.store import folder
    from lbfast.web.users import UserFault
    from lbfast.web.vendor import carry_out

    try:
        with web_store() as store:
            answer = carry_out(store, Audit(folder()), options, who(), "console", is_console=True)
            if "apikey" in answer:
                SetupCode(store, folder()).forget()
            return answer
    except (UserFault, Refused) as error:
        raise ControlError("refused", str(error)) from None


def _show(entry: dict[str, Any]) -> None:
    text = f"{entry['action']}: {entry['status']}: {entry['message']}"
    print(clean(text), file=sys.stdout if entry["status"] == "success" else sys.stderr)
    if "config" in entry:
        print(entry["config"], end="")
    if "apikey" in entry:
        print(f"username {clean(entry['username'])}\napikey {entry['apikey']}")
    for key in ("virtual", "floatingip"):
        if key in entry:
            print(json.dumps(entry[key], indent=2))


if __name__ == "__main__":
    main()
