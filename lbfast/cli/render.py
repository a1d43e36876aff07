"""Results of the control protocol as tables and sentences for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lbfast.cli.clean import clean, duration, moment, plural, size, when
from lbfast.cli.labels import all_reals
from lbfast.cli.shapes import Shapes

if TYPE_CHECKING:
    from rich.console import RenderableType

Columns = Sequence[tuple[str, str]]  # title and "left", "right" or "fold"


def table(columns: Columns, rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines: titles in capitals, two blanks between columns."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, kind in columns:
        made.add_column(
            title.upper(), justify="right" if kind == "right" else "left", no_wrap=kind != "fold", overflow="fold"
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    return made


def overview(result: dict[str, Any], shapes: Shapes, wide: bool) -> Iterator[RenderableType]:
    """Each virtual service as a heading with its real servers below."""
    services = result["virtual_services"]
    if former := result.get("former"):
        yield Text(clean(former["words"]), style="bold")
        yield Text("")
    if not services:
        yield Text("no virtual services")
    for index, service in enumerate(services):
        if index:
            yield Text("")
        yield _heading(service, shapes)
        yield _reals(all_reals(service), shapes, wide)
        if not wide:
            yield from _notes(all_reals(service))


def _heading(service: dict[str, Any], shapes: Shapes) -> Text:
    counts = plural(int(service["connections"]), "connection")
    if service.get("persistence_entries") is not None:
        counts += f", {plural(int(service['persistence_entries']), 'client')} remembered"
    return Text.assemble(
        (clean(service["label"]), "bold"),
        "  ",
        endpoint(service["address"], service["ports"]),
        f" {clean(service['mode'])}  ",
        shapes.text(service["state"]),
        f"  {counts}",
    )


def _reals(reals: Sequence[dict[str, Any]], shapes: Shapes, wide: bool) -> Table:
    columns = [
        ("real server", "fold"),
        ("address", "fold"),
        ("state", "left"),
        ("weight", "right"),
        ("conns", "right"),
        ("clients", "right"),
    ]
    rows: list[list[str | Text]] = [
        [
            str(real["label"]),
            endpoint(real["address"], real["port"]),
            shapes.text(real["state"]),
            str(real["weight"]),
            str(real["connections"]),
            count(real["clients"]),
            *([str(real["reason"] or "")] if wide else []),
        ]
        for real in reals
    ]
    return table(columns + ([("reason", "fold")] if wide else []), rows)


def _notes(reals: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """Reasons below the table, where a narrow terminal has room for them."""
    for real in reals:
        if real["reason"]:
            yield Text(f"  {clean(real['label'])}: {clean(real['reason'])}", style="dim")


def endpoint(address: object, port: object) -> str:
    """Address and port, IPv6 in brackets; the address alone when the client's port is kept."""
    host = clean(address)
    if port in (None, 0, ""):
        return host
    return f"[{host}]:{clean(port)}" if ":" in host else f"{host}:{clean(port)}"


def count(value: object) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else clean(value)


def entries(result: dict[str, Any]) -> Iterator[RenderableType]:
    """The persistence table with a last line that tells how full it is."""
    found = result["entries"]
    columns = (
        ("client", "fold"),
        ("real server", "fold"),
        ("state", "left"),
        ("reason", "left"),
        ("conns", "right"),
        ("since", "left"),
        ("expires in", "right"),
    )
    if found:
        yield table(columns, ([*_entry(entry)] for entry in found))
    shown = f"{len(found)} of {result['count']} shown, " if len(found) != result["count"] else ""
    yield Text(f"{shown}{plural(int(result['count']), 'entry', 'entries')}, room for {result['capacity']}")


def _entry(entry: dict[str, Any]) -> Iterator[str]:
    yield str(entry["client"])
    yield str(entry["real"])
    yield "pinned" if entry["pinned"] else str(entry["state"])
    yield str(entry["reason"])
    yield str(entry["connections"])
    yield when(entry["since"])
    yield expiry(entry)


def expiry(entry: dict[str, Any]) -> str:
    """When an entry goes: never, not while in use, or in so long."""
    if entry["pinned"]:
        return "never"
    if entry["expires_in"] is None:
        return "in use"
    return duration(float(entry["expires_in"]))


def connections(result: dict[str, Any]) -> Iterator[RenderableType]:
    """Open connections, one a line."""
    found = result["connections"]
    columns = (
        ("client", "fold"),
        ("real server", "fold"),
        ("phase", "left"),
        ("reason", "left"),
        ("in", "right"),
        ("out", "right"),
        ("opened", "left"),
        ("idle", "right"),
    )
    if found:
        yield table(columns, ([*_connection(item)] for item in found))
    yield Text(plural(len(found), "connection"))


def _connection(item: dict[str, Any]) -> Iterator[str]:
    yield endpoint(item["client"], item["client_port"])
    yield str(item["real"] or "-")
    yield str(item["phase"])
    yield str(item["reason"])
    yield size(item["bytes_in"])
    yield size(item["bytes_out"])
    at = moment(item["opened"])
    yield at.strftime("%H:%M:%S") if at else "-"
    yield "-" if item["idle"] is None else duration(float(item["idle"]))


def health(result: dict[str, Any], shapes: Shapes) -> Iterator[RenderableType]:
    """Where a real server stands and its last health checks, newest first."""
    state = shapes.text(result["state"])
    verdict = f"  health {clean(result['health'])} since {when(result['since'])}"
    reason = f": {clean(result['reason'])}" if result["reason"] else ""
    yield Text.assemble((_label(result["real"]), "bold"), "  ", state, verdict + reason)
    if result.get("certificate"):
        yield Text(f"certificate: {facts(result['certificate'])}")
    for warning in result.get("warnings") or ():
        yield Text(f"warning: {clean(warning)}", style="yellow")
    rows: list[list[str | Text]] = [
        [
            when(check["at"]),
            Text("ok", "green") if check["ok"] else Text("failed", "bold red"),
            duration(float(check["duration_ms"]) / 1000),
            str(check["reason"] or ""),
        ]
        for check in result["results"]
    ]
    if rows:
        yield table((("at", "left"), ("result", "left"), ("took", "right"), ("reason", "fold")), rows)
    else:
        yield Text("no health check has ended yet")


def probe(test: dict[str, Any]) -> Iterator[RenderableType]:
    """One probe out of turn, step by step."""
    verdict = Text("passed", "green") if test["ok"] else Text("failed", "bold red")
    took = f" after {duration(test['duration_ms'] / 1000)}: {clean(test['reason'])}"
    yield Text.assemble((clean(test["real"]), "bold"), f"  {test['type']} to {test['place']}  ", verdict, took)
    rows: list[list[str | Text]] = [
        [
            f"{step['at_ms']:.1f} ms",
            step["phase"],
            Text("ok", "green") if step["ok"] else Text("failed", "bold red"),
            clean(step["seen"]),
        ]
        for step in test["steps"]
    ]
    if rows:
        yield table((("at", "right"), ("step", "left"), ("result", "left"), ("seen", "fold")), rows)


def _label(real: object) -> str:
    return clean(real["label"] if isinstance(real, dict) else real)


def facts(values: dict[str, Any]) -> str:
    """The known facts of a small record in one line; times given as numbers are told as dates."""
    shown = []
    for name, value in values.items():
        if name.startswith("not_") and isinstance(value, (int, float)):
            value = when(value)
        elif isinstance(value, (list, tuple)):
            value = " ".join(str(part) for part in value)
        if value not in (None, "", {}):
            shown.append(f"{clean(name).replace('_', ' ')} {clean(value)}")
    return ", ".join(shown)
