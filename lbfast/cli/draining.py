"""The verbs of taking a real server out in peace: drain with its forecast and its end, and the wait for it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.changing import now
from lbfast.cli.clean import clean, plural, quote
from lbfast.cli.errors import OK, TIMED_OUT, BadUsage, Unavailable
from lbfast.cli.options import Json, Real, Reason, Service

_LOOK = 0.5
_TELL = 30.0  # seconds between two lines that say the same

Deadline = Annotated[
    str | None, Parameter(name="--deadline", help="After this long no known client is taken back either, e.g. 30m.")
]
Cut = Annotated[bool, Parameter(name="--cut", negative="", help="At the deadline cut the connections that are left.")]
Stagger = Annotated[
    str | None,
    Parameter(name="--stagger", help="From the deadline on move (and cut) clients over this time, e.g. 60s."),
]


def drain(
    service: Service,
    real: Real,
    /,
    *,
    plan: Annotated[
        bool, Parameter(name="--plan", negative="", help="Change nothing: who is on it, and when will it be empty?")
    ] = False,
    deadline: Deadline = None,
    cut: Cut = False,
    stagger: Stagger = None,
    reason: Reason = None,
    json: Json = False,
) -> int:
    """Send a real server no new clients; its own may return as the service's drain policy says."""
    end: dict[str, Any] = {
        "deadline": _seconds("--deadline", deadline, "24d"),
        "cut": cut or None,
        "stagger": _seconds("--stagger", stagger, "24h"),
    }
    if plan and reason is not None:
        raise BadUsage("--plan changes nothing and takes no --reason")
    if plan:
        result = talk.ask("drain_plan", service=service, real=real, **end)
    else:
        result = talk.ask("drain", service=service, real=real, reason=reason, **end)
    if json:
        out.print_json(result)
    elif plan:
        out.line(f"{quote(result['service'])} / {quote(result['real'])}: {clean(result['state'])}")
        for sentence in result["lines"]:
            out.line(clean(sentence))
    else:
        out.line(now(service, result))
    return OK


def wait(
    service: Service,
    real: Real,
    /,
    *,
    safe_to_patch: Annotated[
        bool, Parameter(name="--safe-to-patch", negative="", help="No open connection, and no client that may return.")
    ] = False,
    timeout: Annotated[
        str | None, Parameter(name="--timeout", help="Give up after this long, with exit code 3; without it never.")
    ] = None,
    json: Json = False,
) -> int:
    """Wait until nobody is on a drained or halted real server: exit code 0, or 3 when the time is up."""
    if not safe_to_patch:
        raise BadUsage("say what to wait for: --safe-to-patch")
    limit = _seconds("--timeout", timeout, "24d")
    end = None if limit is None else time.monotonic() + limit
    progress = _Progress(service, real, json)
    while True:
        found = _occupancy(service, real, is_first=not progress.told)
        if found is not None and found["safe"]:
            progress.tell(found, "safe to patch")
            return OK
        left = _LOOK if end is None else end - time.monotonic()
        if left <= 0:
            progress.tell(found, "the time is up")
            return TIMED_OUT
        progress.tell(found)
        time.sleep(min(_LOOK, left))


def _occupancy(service: str, real: str, *, is_first: bool) -> dict[str, Any] | None:
    """None while control does not answer: it is started again, and a wait of hours should not end for that."""
    try:
        result: dict[str, Any] = talk.ask("occupancy", service=service, real=real)
    except Unavailable:
        if is_first:
            raise
        return None
    return result


class _Progress:
    """A line when something changed, or after a while to show that we still look."""

    def __init__(self, service: str, real: str, json: bool) -> None:
        self._name = f"{quote(service)} / {quote(real)}"
        self._json = json
        self._at = 0.0
        self.told: object = None

    def tell(self, found: dict[str, Any] | None, end: str = "") -> None:
        news = None if found is None else (found["connections"], found["returning"], found["state"])
        at = time.monotonic()
        if not end and self.told is not None and news == self.told and at - self._at < _TELL:
            return
        self.told, self._at = news or self.told or (), at
        if self._json:
            out.print_json_line({"done": bool(end), **(found or {"safe": False})})
        else:
            out.line(f"{self._name}: {_words(found)}" + (f": {end}" if end else ""))


def _words(found: dict[str, Any] | None) -> str:
    if found is None:
        return "lbfast does not answer, its control process probably restarts"
    clients = plural(found["returning"], "client")
    return f"{clean(found['state'])}, {plural(found['connections'], 'open connection')}, {clients} that may return"


def _seconds(option: str, text: str | None, most: str) -> int | None:
    if text is None:
        return None
    from lbfast.model.durations import parse_duration  # with pydantic: not for those who give no time

    try:
        ms = parse_duration(text)
    except ValueError:
        ms = -1
    if ms % 1_000 or not 0 <= ms <= parse_duration(most):
        raise BadUsage(f"{option} takes a time in whole seconds from 0s to {most}, such as 30m, got {clean(text)}")
    return ms // 1_000
