"""The counters of workers and services as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lbfast.cli.clean import clean, size
from lbfast.cli.render import table

if TYPE_CHECKING:
    from rich.console import RenderableType

_TRAFFIC = ("connections", "accepted", "handed_over", "taken_over")
_SHORTAGES = ("accept_errors", "no_descriptors", "no_memory", "no_ports", "no_pipes", "stick_full")
_SERVICE = ("connections", "accepted", "denied", "limited", "client_limited", "refused")
_REAL = ("connections", "opened", "connect_failures")


def statistics(result: dict[str, Any]) -> Iterator[RenderableType]:
    """Workers with what they lacked, then each service with its real servers."""
    workers = result["workers"]
    yield _counts("worker", _TRAFFIC, workers)
    yield Text("")
    yield Text("Met for want of descriptors, memory, ports, pipes, stick table room:", style="bold")
    yield _counts("worker", _SHORTAGES, workers)
    for service in result["virtual_services"]:
        yield Text("")
        yield Text(clean(service["label"]), style="bold")
        yield _counts("", _SERVICE, [service])
        yield from _backlog(service.get("backlog"))
        yield _reals(service["real_servers"])
    yield from _overflows(result.get("system"))
    lost = result["events"]
    yield Text("")
    yield Text(f"events lost {lost['lost']}, skipped {lost['skipped']}, kept out of the log {lost['not_logged']}")


def _backlog(found: dict[str, int] | None) -> Iterator[RenderableType]:
    if found and found["limit"]:
        queued, fullest, limit = (found[name] for name in ("queued", "fullest", "limit"))
        yield Text(f"waiting to be accepted {queued}; in the fullest queue {fullest} of {limit}")


def _overflows(found: dict[str, int] | None) -> Iterator[RenderableType]:
    if found:
        overflows, cookies = found["listen_overflows"], found["syn_cookies"]
        yield Text(f"all of this machine: full accept queues {overflows}, SYN cookies sent {cookies}")


def _counts(title: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> RenderableType:
    head = [(title, "left")] if title else []
    columns = head + [(name.replace("_", " "), "right") for name in names]
    cells = [([str(row["index"])] if title else []) + [str(row[name]) for name in names] for row in rows]
    return table(columns, cells)


def _reals(reals: Sequence[dict[str, Any]]) -> RenderableType:
    columns = [("real server", "left"), *((name.replace("_", " "), "right") for name in _REAL)]
    columns += [("in", "right"), ("out", "right")]
    rows = [
        [str(real["label"]), *(str(real[name]) for name in _REAL), size(real["bytes_in"]), size(real["bytes_out"])]
        for real in reals
    ]
    return table(columns, rows)
