"""The verbs of the persistence table: show, clear, pin."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural, quote
from lbfast.cli.errors import OK, BadUsage
from lbfast.cli.options import Address, Json, Real, Service, address, network

Client = Annotated[str | None, Parameter(name="--client", help="Only this client: an address or a network.")]


def show(
    service: Service,
    /,
    *,
    client: Client = None,
    limit: Annotated[int | None, Parameter(name="--limit", help="At most so many entries.")] = None,
    json: Json = False,
) -> int:
    """Which client belongs to which real server, since when, why, and until when."""
    if limit is not None and limit < 1:
        raise BadUsage(f"--limit must be 1 or more, got {limit}")
    chosen = None if client is None else network(client)
    result = talk.ask("persistence_show", service=service, client=chosen, limit=limit)
    if json:
        out.print_json(result)
        return OK
    from lbfast.cli import render

    out.show(render.entries(result))
    return OK


def clear(
    service: Service,
    /,
    *,
    client: Client = None,
    real: Annotated[
        str | None, Parameter(name="--real", help="Only clients of this real server.", allow_leading_hyphen=True)
    ] = None,
    json: Json = False,
) -> int:
    """Forget clients, pinned ones too, so that their next connection is placed anew; all without a filter."""
    chosen = None if client is None else network(client)
    result = talk.ask("persistence_clear", service=service, client=chosen, real=real)
    if json:
        out.print_json(result)
        return OK
    which = [f"of {quote(real)}"] if real is not None else []
    which += [f"in {clean(chosen)}"] if chosen is not None and "/" in chosen else []
    which += [f"for {clean(chosen)}"] if chosen is not None and "/" not in chosen else []
    filtered = " ".join(which) or "all there were"
    out.line(f"{quote(service)}: {plural(result['removed'], 'entry', 'entries')} removed ({filtered})")
    return OK


def pin(service: Service, client: Address, real: Real, /, *, json: Json = False) -> int:
    """Bind a client to a real server for good (until `persistence clear`)."""
    result = talk.ask("persistence_pin", service=service, client=address(client), real=real)
    if json:
        out.print_json(result)
        return OK
    out.line(f"{quote(service)}: {clean(result['client'])} is pinned to {quote(result['real'])}")
    return OK
