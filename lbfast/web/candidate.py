"""The candidate as the pages use it: its text as data, edits that come back with a word for each field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbfast.web.client import AsyncClient
from lbfast.web.said import said

Data = dict[str, Any]
Problem = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """``data`` is what the text says; ``tag`` names this state of it."""

    text: str
    tag: str
    version: int
    is_changed: bool
    changes: tuple[str, ...]
    data: Data

    @property
    def services(self) -> list[Data]:
        return list(self.data.get("virtual_service", []))

    def service(self, label: str) -> Data | None:
        return next((it for it in self.services if it.get("label") == label), None)

    def real(self, service: str, label: str) -> Data | None:
        found = self.service(service) or {}
        return next((it for it in found.get("real_server", []) if it.get("label") == label), None)


@dataclass(frozen=True)
class Outcome:
    """Of an edit: ``faults`` by field's name, ``others`` for what belongs to no field of the form."""

    is_accepted: bool
    faults: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


async def read_candidate(client: AsyncClient) -> Candidate:
    report = await client.call("candidate")
    changes = tuple(f"{it['text']} ({it['by']})" for it in report["changes"])
    try:
        data = tomllib.loads(report["text"])
    except tomllib.TOMLDecodeError:
        data = {}  # it cannot be committed either, and `check` says why
    return Candidate(report["text"], report["tag"], report["version"], report["is_changed"], changes, data)


async def edit(
    client: AsyncClient,
    by: str,
    operations: Sequence[Mapping[str, Any]],
    tag: str | None = None,
    service: str | None = None,
    real: str | None = None,
) -> Outcome:
    """Try the operations; all of them or none.  Problems of ``service`` (and ``real``) go to their fields."""
    report = await client.call("candidate_edit", by=by, operations=list(operations), tag=tag)
    return outcome_of(report, service, real)


def found_expected(problem: Problem) -> str:
    """For the field that a problem is about."""
    return said("Found %(found)s, expected %(expected)s.", found=problem["found"], expected=problem["expected"])


def outcome_of(report: Mapping[str, Any], service: str | None, real: str | None) -> Outcome:
    """Of what lbfast said of an edit, or of one that was only tried."""
    faults: dict[str, str] = {}
    others: list[str] = []
    for problem in report["problems"]:
        text = found_expected(problem)
        if problem["field"] and (problem["service"], problem["real"]) == (service, real):
            faults.setdefault(_plain(problem["field"]), text)
        else:
            others.append(problem["message"])
    return Outcome(report["accepted"], faults, tuple(others))


def _plain(name: str) -> str:
    """``allow.0`` is about the field ``allow``."""
    return ".".join(part for part in name.split(".") if not part.isdigit())
