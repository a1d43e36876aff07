"""The verbs that change a real server at once: halt, online, weight."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural, quote
from lbfast.cli.errors import OK, BadUsage
from lbfast.cli.options import Json, Real, Reason, Service


def halt(service: Service, real: Real, /, *, reason: Reason = None, json: Json = False) -> int:
    """Take a real server out at once: it takes nobody and its open connections are cut."""
    return _change("halt", service, real, json, reason=reason)


def online(service: Service, real: Real, /, *, reason: Reason = None, json: Json = False) -> int:
    """Put a drained or halted real server back to work."""
    return _change("online", service, real, json, reason=reason)


def weight(
    service: Service,
    real: Real,
    weight: Annotated[int, Parameter(name="N", help="0 to 256; 0 takes no new clients.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Set the weight of a real server; it survives restarts until set anew."""
    if not 0 <= weight <= 256:
        raise BadUsage(f"the weight of a real server is 0 to 256, got {weight}")
    return _change("weight", service, real, json, weight=weight)


def _change(verb: str, service: str, real: str, json: bool, **args: Any) -> int:
    result = talk.ask(verb, service=service, real=real, **args)
    if json:
        out.print_json(result)
        return OK
    out.line(now(service, result))
    return OK


def now(service: str, real: dict[str, Any]) -> str:
    """A real server as it is after a change, in one line."""
    clients = f", {plural(int(real['clients']), 'client')} remembered" if real["clients"] is not None else ""
    reason = f" ({clean(real['reason'])})" if real["reason"] else ""
    connections = plural(int(real["connections"]), "open connection")
    return (
        f"{quote(service)} / {quote(real['label'])}: {clean(real['state'])}, weight {real['weight']},"
        f" {connections}{clients}{reason}"
    )
