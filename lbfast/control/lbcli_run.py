"""Carries out the vendor's verbs.  Pure: a generator that says what to ask lbfast, and is given the answers.

One list of actions is one transaction: every action is understood, and all edits are tried as one, before anything is
done.  Edits go to the candidate; reload-haproxy commits it, as the vendor's "Reload HAProxy" makes changes live.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from lbfast.control.lbcli_options import LbcliError, given, rip_settings, vip_settings
from lbfast.control.protocol import ControlError

Report = dict[str, Any]
MOST_ACTIONS: Final = 500
TABLE_SIZE: Final = 10_240  # the vendor's default; the others are lbfast's own too


# Not a verb of the control socket: the switch lies with users and keys, and whoever carries the actions out asks there.
API_SWITCH: Final = "vendor_api"


@dataclass(frozen=True)
class Ask:
    """A question to lbfast."""

    verb: str
    args: Report


@dataclass(frozen=True)
class Step:
    """An action understood: an operation on the candidate, or something to be done in its turn."""

    action: str
    operation: Report | None = None
    options: Mapping[str, str] | None = None

    @property
    def is_edit(self) -> bool:
        return self.operation is not None


Asking = Generator[Ask, Report, Report]

EDITS: Final = ("add-vip", "edit-vip", "delete-vip", "clone-vip", "add-rip", "edit-rip", "delete-rip")
OPERATIONS: Final = ("drain", "halt", "online", "haproxy-clear-stick")
READS: Final = ("list", "api")


def role_of(action: str, function: str = "") -> str:
    """Who may."""
    if action == "api" and function.strip() not in ("", "get"):
        return "configure"
    if action in READS:
        return "report"
    return "operate" if action in OPERATIONS or action == "support-download" else "configure"


def run(actions: Sequence[Any]) -> Generator[Ask, Report, tuple[bool, list[Report]]]:
    """``(whether all went well, an entry for each action)``."""
    steps: list[Step] = []
    for number, action in enumerate(actions):
        try:
            steps.append(understand(action))
        except LbcliError as error:
            return False, _failed(actions, number, str(error))
    operations = [step.operation for step in steps if step.operation is not None]
    before: Report = {}
    if operations:
        before = yield Ask("candidate", {})
        try:
            answer = yield Ask("candidate_edit", {"operations": operations, "tag": before["tag"]})
        except ControlError as error:
            return False, _failed(actions, _guilty(steps, error.message), error.message)
        if not answer["accepted"]:
            lines = "; ".join(it["message"] for it in answer["problems"])
            return False, _failed(actions, _concerned(steps, answer["problems"]), lines)
    return (yield from _do(actions, steps, before))


def _do(actions: Sequence[Any], steps: list[Step], before: Report) -> Generator[Ask, Report, tuple[bool, list[Report]]]:
    results: list[Report] = []
    was_committed = False
    for number, step in enumerate(steps):
        try:
            details: Report = {"message": "in the candidate"}
            if not step.is_edit:
                details = yield from _ACTS[step.action](step.options or {})
            was_committed = was_committed or step.action in ("reload-haproxy", "restart-haproxy")
            results.append({"action": step.action, "status": "success", **details})
        except ControlError as error:
            if before and not was_committed:
                yield from _undo(before)
            stands = {place: it for place, it in enumerate(results) if was_committed or not steps[place].is_edit}
            return False, _failed(actions, number, error.message, stands)
    return True, results


def _undo(before: Report) -> Generator[Ask, Report, None]:
    """Put the candidate back as it was before this transaction."""
    try:
        if before["is_changed"]:
            yield Ask("candidate_edit", {"operations": [{"op": "replace", "text": before["text"]}]})
        else:
            yield Ask("candidate_discard", {})
    except ControlError:
        pass  # somebody else has edited it meanwhile: then it is theirs


def _failed(
    actions: Sequence[Any], guilty: int, message: str, done: Mapping[int, Report] = MappingProxyType({})
) -> list[Report]:
    """An entry for each action: which one was wrong, what stands all the same, and that the others were not done."""
    entries: list[Report] = []
    for number, action in enumerate(actions):
        name = str(action.get("action", "")) if isinstance(action, Mapping) else ""
        if number in done:
            entries.append(done[number])
        elif number == guilty:
            entries.append({"action": name, "status": "error", "message": message})
        else:
            why = f"not done, because action {guilty + 1} failed"
            entries.append({"action": name, "status": "not done", "message": why})
    return entries


def _guilty(steps: list[Step], message: str) -> int:
    """The action whose operation an error names by its place among the operations."""
    edits = [number for number, step in enumerate(steps) if step.is_edit]
    for place, number in enumerate(edits):
        if message.startswith(f"operations[{place}]"):
            return number
    return edits[0] if edits else 0


def _concerned(steps: list[Step], problems: list[Report]) -> int:
    """The last action that edits what the first problem is about."""
    first = problems[0] if problems else {}
    found = 0
    for number, step in enumerate(steps):
        if step.operation is None:
            continue
        settings = step.operation.get("settings", {})
        names = (step.operation.get("service"), step.operation.get("real"), settings.get("label"))
        if (first.get("real") or first.get("service")) in names:
            found = number
    return found


# --- understanding --------------------------------------------------------------------------------


def understand(action: Any) -> Step:
    """The step of an action; LbcliError says what is wrong with it."""
    if not isinstance(action, Mapping):
        raise LbcliError("an action is an object with the key action")
    options = given(action)
    name = options.pop("action", "")
    if (method := options.pop("method", "api")) != "api":
        raise LbcliError(f"method: {method[:60]!r} is not possible with lbfast; possible is only api")
    if name in _EDITS:
        return Step(name, _EDITS[name](options))
    if name in _ACTS:
        unknown = sorted(set(options) - set(_TAKEN[name]))
        if unknown:
            raise LbcliError(f"{unknown[0]}: {name} has no such option; it has {', '.join(_TAKEN[name]) or 'none'}")
        for key in _NEEDED.get(name, ()):
            _take(options, name, key)
        return Step(name, None, options)
    if not name:
        raise LbcliError("action is missing")
    known = ", ".join((*_EDITS, *_ACTS))
    raise LbcliError(f"action: {name[:60]!r} is not possible with lbfast; possible are {known}")


def _take(options: Mapping[str, str], action: str, key: str) -> str:
    if key not in options:
        raise LbcliError(f"{key} is missing: {action} needs it")
    return options[key]


def _rest(options: Mapping[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in options.items() if key not in keys}


def _add_vip(options: Mapping[str, str]) -> Report:
    label = _take(options, "add-vip", "vip")
    for key in ("ip", "ports"):
        _take(options, "add-vip", key)
    settings = {"label": label, **vip_settings(_rest(options, "vip"))}
    settings.setdefault("persistence", {}).setdefault("table_size", TABLE_SIZE)
    return {"op": "add_service", "settings": _without_nulls(settings)}


def _edit_vip(options: Mapping[str, str]) -> Report:
    label = _take(options, "edit-vip", "vip")
    settings = vip_settings(_rest(options, "vip"))
    if set(options) == {"vip"}:
        raise LbcliError("edit-vip: no option was given")
    # What is so anyway (compression off) changes nothing, but the service must be there.
    return {"op": "change_service", "service": label, "settings": settings or {"label": label}}


def _delete_vip(options: Mapping[str, str]) -> Report:
    label = _take(options, "delete-vip", "vip")
    vip_settings(_rest(options, "vip"))
    return {"op": "delete_service", "service": label}


def _clone_vip(options: Mapping[str, str]) -> Report:
    label = _take(options, "clone-vip", "vip")
    settings = {"label": _take(options, "clone-vip", "clone"), **vip_settings(_rest(options, "vip", "clone"))}
    return {"op": "clone_service", "service": label, "settings": settings}


def _add_rip(options: Mapping[str, str]) -> Report:
    vip, rip = (_take(options, "add-rip", key) for key in ("vip", "rip"))
    _take(options, "add-rip", "ip")
    return {"op": "add_real", "service": vip, "settings": {"label": rip, **rip_settings(_rest(options, "vip", "rip"))}}


def _edit_rip(options: Mapping[str, str]) -> Report:
    vip, rip = (_take(options, "edit-rip", key) for key in ("vip", "rip"))
    settings = rip_settings(_rest(options, "vip", "rip"))
    if set(options) == {"vip", "rip"}:
        raise LbcliError("edit-rip: no option was given")
    return {"op": "change_real", "service": vip, "real": rip, "settings": settings or {"label": rip}}


def _delete_rip(options: Mapping[str, str]) -> Report:
    vip, rip = (_take(options, "delete-rip", key) for key in ("vip", "rip"))
    rip_settings(_rest(options, "vip", "rip"))
    return {"op": "delete_real", "service": vip, "real": rip}


def _without_nulls(settings: Report) -> Report:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if value is not None
    }


_EDITS: Final[Mapping[str, Callable[[Mapping[str, str]], Report]]] = MappingProxyType(
    dict(zip(EDITS, (_add_vip, _edit_vip, _delete_vip, _clone_vip, _add_rip, _edit_rip, _delete_rip), strict=True))
)


# --- doing ----------------------------------------------------------------------------------------


def _set_admin(verb: str) -> Callable[[Mapping[str, str]], Asking]:
    def act(options: Mapping[str, str]) -> Asking:
        vip, rip = options["vip"], options["rip"]
        pairs = [(vip, rip)]
        if options.get("services") == "all":
            overview = yield Ask("overview", {})
            pairs += [
                (service["label"], real["label"])
                for service in overview["virtual_services"]
                for real in service["real_servers"]
                if real["label"] == rip and service["label"] != vip
            ]
        states = []
        for service, real in pairs:
            report = yield Ask(verb, {"service": service, "real": real, "reason": "by lbcli"})
            states.append(f"{service} / {real}: {report['admin']}")
        return {"message": "; ".join(states)}

    return act


def _clear_stick(options: Mapping[str, str]) -> Asking:
    labels = [options["vip"]] if "vip" in options else []
    if not labels:
        overview = yield Ask("overview", {})
        labels = [it["label"] for it in overview["virtual_services"] if it["persistence_entries"] is not None]
    removed = 0
    for label in labels:
        report = yield Ask("persistence_clear", {"service": label})
        removed += report["removed"]
    return {"message": f"{removed} persistence entries removed"}


def _reload(_options: Mapping[str, str]) -> Asking:
    candidate = yield Ask("candidate", {})
    if not candidate["is_changed"]:
        return {"message": "nothing was waiting to be made live"}
    report = yield Ask("candidate_commit", {"tag": candidate["tag"], "reason": "by lbcli"})
    return {"message": f"version {report['version']} runs", "version": report["version"]}


def _list(options: Mapping[str, str]) -> Asking:
    function = options.get("function", "virtual")
    if function == "dumpconfig":
        candidate = yield Ask("candidate", {})
        return {"message": "the configuration", "config": candidate["text"]}
    overview = yield Ask("overview", {})
    services = overview["virtual_services"]
    if function == "floatingip":
        addresses = sorted({it["address"] for it in services})
        return {"message": f"{len(addresses)} addresses", "floatingip": addresses}
    if function not in ("virtual", "advanced"):
        found = f"function: expected virtual, advanced, floatingip or dumpconfig, found {function[:40]!r}"
        raise ControlError("bad_argument", found)
    if options.get("layer", "7") != "7":
        services = []  # all that there are, are of layer 7
    wanted = [_only(it, options.get("rip")) for it in services if options.get("vip") in (None, it["label"])]
    shown = wanted if function == "advanced" else [_as_vendor(it) for it in wanted]
    return {"message": f"{len(wanted)} virtual services", "virtual": shown}


def _only(service: Report, rip: str | None) -> Report:
    return service | {"real_servers": [it for it in service["real_servers"] if rip in (None, it["label"])]}


def _as_vendor(service: Report) -> Report:
    names = {"rip": "label", "ip": "address", "weight": "weight", "status": "state"}
    rips = [
        {name: it[key] for name, key in names.items()} | {"port": it["port"] or ""} for it in service["real_servers"]
    ]
    keys = {"vip": "label", "ip": "address", "ports": "ports", "mode": "mode", "status": "state"}
    return {name: service[key] for name, key in keys.items()} | {"layer": "7", "rips": rips}


def _support(_options: Mapping[str, str]) -> Asking:
    report = yield Ask("support", {})
    return {"message": f"{report['name']} is ready", "file": report["name"], "url": f"/api/v1/support/{report['name']}"}


def _api(options: Mapping[str, str]) -> Asking:
    return (yield Ask(API_SWITCH, dict(options)))


_ACTS: Final[Mapping[str, Callable[[Mapping[str, str]], Asking]]] = MappingProxyType(
    {
        "drain": _set_admin("drain"),
        "halt": _set_admin("halt"),
        "online": _set_admin("online"),
        "haproxy-clear-stick": _clear_stick,
        "reload-haproxy": _reload,
        "restart-haproxy": _reload,
        "list": _list,
        "support-download": _support,
        "api": _api,
    }
)
_TAKEN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **dict.fromkeys(("drain", "halt", "online"), ("vip", "rip", "services", "layer")),
        "haproxy-clear-stick": ("vip",),
        "reload-haproxy": (),
        "restart-haproxy": (),
        "list": ("function", "vip", "rip", "layer"),
        "support-download": (),
        "api": ("function", "username", "password", "apikey"),
    }
)
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    dict.fromkeys(("drain", "halt", "online"), ("vip", "rip"))
)
