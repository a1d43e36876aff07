"""The verbs that read: overview, connections, explain, events, health, statistics, version."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from lbfast import __version__
from lbfast.cli import out, talk
from lbfast.cli.clean import clean, plural, when
from lbfast.cli.errors import FAILED, OK, BadConfig, BadUsage, Refused
from lbfast.cli.event_lines import event_line
from lbfast.cli.options import Address, Json, Real, Service, address, network

PROBE_S = 180.0  # a probe takes as long as its timeout says

Client = Annotated[str | None, Parameter(name="--client", help="Only this client: an address or a network.")]


def overview(*, json: Json = False) -> int:
    """All virtual services and their real servers: states, weights, connections, reasons."""
    result = talk.ask("overview")
    if json:
        out.print_json(result)
        return OK
    from lbfast.cli import render
    from lbfast.cli.shapes import Shapes

    out.show(render.overview(result, Shapes(out.unicode_shapes()), out.wide()))
    return OK


def connections(service: Service, /, *, client: Client = None, json: Json = False) -> int:
    """The open connections of a virtual service."""
    result = talk.ask("connections", service=service, client=None if client is None else network(client))
    if json:
        out.print_json(result)
        return OK
    from lbfast.cli import render

    out.show(render.connections(result))
    return OK


def explain(service: Service, client: Address, /, *, json: Json = False) -> int:
    """Where a client goes, since when, why, and where it would go otherwise."""
    result = talk.ask("explain", service=service, client=address(client))
    if json:
        out.print_json(result)
        return OK
    for sentence in result["lines"] or [result["why"]]:
        out.line(clean(sentence))
    return OK


def events(
    *,
    follow: Annotated[
        bool, Parameter(name="--follow", alias="-f", negative="", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    limit: Annotated[int | None, Parameter(name="--limit", help="At most so many of the newest events.")] = None,
    json: Json = False,
) -> int:
    """What happened last: connections opened, closed and refused, health, and what operators did."""
    if limit is not None and limit < 0:
        raise BadUsage(f"--limit must be 0 or more, got {limit}")
    if follow:
        _follow(limit, json)
        return OK
    result = talk.ask("events", limit=limit)
    if json:
        out.print_json(result)
        return OK
    for event in result["events"]:
        out.line(event_line(event))
    return OK


def _follow(limit: int | None, json: bool) -> None:
    try:
        for event in talk.follow("events", limit=limit):
            if json:
                out.print_json_line(event)
            else:
                out.line(event_line(event))
    except KeyboardInterrupt:
        return  # the way to end it
    raise Refused("lbfast ended the stream of events; its control process stopped or restarts")


def health(
    service: Service,
    real: Real,
    /,
    *,
    test: Annotated[bool, Parameter(name="--test", help="Make one probe now and show what it sees.")] = False,
    candidate: Annotated[bool, Parameter(name="--candidate", help="With --test: as the candidate has it.")] = False,
    json: Json = False,
) -> int:
    """The last health checks of a real server, newest first, with their reasons; with --test one more, step by step."""
    if candidate and not test:
        raise BadUsage("--candidate goes with --test: there are no health checks of what does not run")
    if test:
        return _test_health(service, real, candidate, json)
    result = talk.ask("health", service=service, real=real)
    if json:
        out.print_json(result)
        return OK
    from lbfast.cli import render
    from lbfast.cli.shapes import Shapes

    out.show(render.health(result, Shapes(out.unicode_shapes())))
    return OK


def _test_health(service: str, real: str, candidate: bool, json: bool) -> int:
    """FAILED when the probe has failed, so that a script can ask."""
    result = talk.ask("health_test", PROBE_S, service=service, real=real, operations=[] if candidate else None)
    if not result["accepted"]:
        raise BadConfig("\n".join(clean(it["message"]) for it in result["problems"]))
    if json:
        out.print_json(result)
    else:
        from lbfast.cli import render

        out.show(render.probe(result["tests"][0]))
    return OK if result["tests"][0]["ok"] else FAILED


def statistics(*, json: Json = False) -> int:
    """The counters of workers, virtual services and real servers since the start."""
    result = talk.ask("statistics")
    if json:
        out.print_json(result)
        return OK
    from lbfast.cli import render_counters

    out.show(render_counters.statistics(result))
    return OK


def version(*, json: Json = False) -> int:
    """The version of this program and, when one runs here, of the running lbfast."""
    if json:
        out.print_json(_versions())
        return OK
    out.line(f"lbfast {__version__}")
    try:
        running = talk.ask("version")
    except Refused:
        out.line("not running here")
        return OK
    out.line(
        f"running: {clean(running['version'])}, pid {running['pid']}, since {when(running['started'])},"
        f" {plural(running['workers'], 'worker')}, configuration {clean(running['config'])}"
    )
    return OK


def _versions() -> dict[str, Any]:
    """The answer of the running lbfast; without one, this program's version and nulls."""
    try:
        result: dict[str, Any] = talk.ask("version")
    except Refused:
        return {"version": __version__, "pid": None, "started": None, "config": None, "workers": None}
    return result
