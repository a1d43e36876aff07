"""Unknown labels answered with the nearest and the valid ones; pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from lbfast.cli.clean import quote

_SHOWN = 20  # a list longer than this helps nobody on a terminal


def nearest(wanted: str, labels: Sequence[str]) -> str | None:
    """The label most like the wanted one, whatever its case; None when none is near."""
    folded = {label.casefold(): label for label in reversed(labels)}
    found = get_close_matches(wanted.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def unknown(kind: str, wanted: str, labels: Sequence[str], where: str = "") -> str:
    """One line: what was not found, what may have been meant, what there is."""
    text = f"no {kind} {quote(wanted)}{where}"
    if not labels:
        return f"{text}; there is none"
    near = nearest(wanted, labels)
    text += f"; did you mean {quote(near)}? There are: " if near is not None else "; there are: "
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return text + ", ".join(quote(label) for label in labels[:_SHOWN]) + more


def services_of(overview: dict[str, Any]) -> list[str]:
    """The labels of all virtual services of an overview."""
    return [str(service["label"]) for service in overview["virtual_services"]]


def reals_of(overview: dict[str, Any], service: str) -> list[str]:
    """The labels of a virtual service's real servers; empty when there is no such service."""
    for candidate in overview["virtual_services"]:
        if candidate["label"] == service:
            return [str(real["label"]) for real in all_reals(candidate)]
    return []


def all_reals(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The real servers of a service of an overview, its fallback server last."""
    fallback = service.get("fallback_server")
    return [*service["real_servers"], *([] if fallback is None else [fallback])]
