"""What operators have decided, as plain data: admin states, weight overrides and pins, with who, when and why.

Keyed by ids, never by labels or positions, so that renaming or reordering the
configuration moves nothing.  Reading checks every field: a foreign file is a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from lbfast.model.state import Admin

VERSION: Final = 1
LONGEST_DEADLINE: Final = 2_073_600  # 24 days, as in the configuration


@dataclass(frozen=True)
class AdminMark:
    """A drain or halt that stands."""

    state: str  # "drain" or "halt"
    by: str
    at: str
    reason: str = ""
    deadline_at: str | None = None
    expired: bool = False  # the drain deadline has passed
    length: float | None = None  # seconds, of a deadline of this drain's own; None = the service's
    cut: bool = False  # at the deadline what is left is cut, whatever the service says
    stagger: float = 0.0  # seconds, from the deadline on, over which clients are moved (and cut)

    @property
    def admin(self) -> Admin:
        return Admin[self.state.upper()]


@dataclass(frozen=True)
class WeightMark:
    """A weight that differs from the configured one."""

    weight: int
    by: str
    at: str


@dataclass(frozen=True)
class PinMark:
    """A client bound to a real server for good."""

    real: str
    by: str
    at: str


@dataclass(frozen=True)
class Marks:
    """The whole admin state; changing makes a new one."""

    admin: Mapping[str, AdminMark] = field(default_factory=dict)  # real id
    weights: Mapping[str, WeightMark] = field(default_factory=dict)  # real id
    pins: Mapping[str, Mapping[str, PinMark]] = field(default_factory=dict)  # service id -> client

    def with_admin(self, real: str, mark: AdminMark | None) -> Marks:
        return Marks(_with(self.admin, real, mark), self.weights, self.pins)

    def with_weight(self, real: str, mark: WeightMark | None) -> Marks:
        return Marks(self.admin, _with(self.weights, real, mark), self.pins)

    def with_pin(self, service: str, client: str, mark: PinMark | None) -> Marks:
        clients = _with(self.pins.get(service, {}), client, mark)
        return Marks(self.admin, self.weights, _with(self.pins, service, clients or None))

    def without_pins(self, service: str, gone: Callable[[str, PinMark], bool]) -> Marks:
        """The marks without those pins of a service for which ``gone(client, mark)`` holds."""
        kept = {client: mark for client, mark in self.pins.get(service, {}).items() if not gone(client, mark)}
        return Marks(self.admin, self.weights, _with(self.pins, service, kept or None))


def _with(old: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    new = {known: kept for known, kept in old.items() if known != key}
    if value is not None:
        new[key] = value
    return new


def marks_to_json(marks: Marks) -> dict[str, Any]:
    return {
        "version": VERSION,
        "admin": {key: asdict(mark) for key, mark in marks.admin.items()},
        "weights": {key: asdict(mark) for key, mark in marks.weights.items()},
        "pins": {key: {client: asdict(mark) for client, mark in pins.items()} for key, pins in marks.pins.items()},
    }


def marks_from_json(value: Any) -> Marks:
    """The marks in a decoded state file; ValueError names what is wrong."""
    top = _object(value, "the file")
    if top.get("version") != VERSION:
        raise ValueError(f"version {top.get('version')!r}, this lbfast reads {VERSION}")
    return Marks(
        admin={key: _admin(mark, key) for key, mark in _object(top.get("admin"), "admin").items()},
        weights={key: _weight(mark, key) for key, mark in _object(top.get("weights"), "weights").items()},
        pins={
            service: {client: _pin(mark, client) for client, mark in _object(pins, "pins").items()}
            for service, pins in _object(top.get("pins"), "pins").items()
        },
    )


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    return value


def _text(value: dict[str, Any], key: str, where: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise ValueError(f"{where}: {key} is not text")
    return text


def _admin(value: Any, where: str) -> AdminMark:
    mark = _object(value, where)
    state = _text(mark, "state", where)
    if state not in ("drain", "halt"):
        raise ValueError(f"{where}: state {state!r} is neither drain nor halt")
    deadline_at = mark.get("deadline_at")
    if deadline_at is not None and datetime.fromisoformat(_text(mark, "deadline_at", where)).tzinfo is None:
        raise ValueError(f"{where}: deadline_at has no time zone")
    return AdminMark(
        state=state,
        by=_text(mark, "by", where),
        at=_text(mark, "at", where),
        reason=_text(mark, "reason", where),
        deadline_at=deadline_at,
        expired=mark.get("expired") is True,
        length=None if mark.get("length") is None else _seconds(mark, "length", where),
        cut=mark.get("cut") is True,
        stagger=_seconds(mark, "stagger", where) if "stagger" in mark else 0.0,
    )


def _seconds(value: dict[str, Any], key: str, where: str) -> float:
    seconds: Any = value.get(key)
    if type(seconds) not in (int, float) or not 0 <= seconds <= LONGEST_DEADLINE:  # NaN is not between
        raise ValueError(f"{where}: {key} {seconds!r} is not 0 to {LONGEST_DEADLINE} seconds")
    return float(seconds)


def _weight(value: Any, where: str) -> WeightMark:
    mark = _object(value, where)
    weight = mark.get("weight")
    if type(weight) is not int or not 0 <= weight <= 256:
        raise ValueError(f"{where}: weight {weight!r} is not 0 to 256")
    return WeightMark(weight, _text(mark, "by", where), _text(mark, "at", where))


def _pin(value: Any, where: str) -> PinMark:
    mark = _object(value, where)
    return PinMark(_text(mark, "real", where), _text(mark, "by", where), _text(mark, "at", where))
