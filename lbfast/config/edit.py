"""Edits of a configuration's text: operations in, the new text out, comments kept.  Pure, but slow on large texts.

An operation is a plain object with ``op`` and:

    add_service      settings, real_servers?      clone_service    service, settings (its new label among them)
    change_service   service, settings            delete_service   service
    add_real         service, settings            delete_real      service, real
    change_real      service, real, settings      change_global    settings
    replace          text

``settings`` are keys as the file has them; a table is merged key by key, null takes a key out.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

SERVICES: Final = "virtual_service"
REALS: Final = "real_server"
MOST_OPERATIONS: Final = 1_000

Operation = Mapping[str, Any]


class EditError(ValueError):
    """An operation that cannot be carried out; the text is for people."""


def edit(text: str, operations: Sequence[Operation]) -> tuple[str, list[str]]:
    """The text after all operations, and a line for each; EditError, and then nothing has happened."""
    if not 1 <= len(operations) <= MOST_OPERATIONS:
        raise EditError(f"expected 1 to {MOST_OPERATIONS} operations, found {len(operations)}")
    document: Any = _parse(text)
    lines = []
    for number, operation in enumerate(operations):
        if not isinstance(operation, Mapping):
            raise EditError(f"operations[{number}]: expected an object, found {type(operation).__name__}")
        document, line = _apply(document, operation, f"operations[{number}]")
        lines.append(line)
    return _spaced(tomlkit.dumps(document)), lines


def _spaced(text: str) -> str:
    """A blank line before each table header; left as it was where that would change what the text says."""
    rows = text.split("\n")
    spaced = "\n".join(
        f"\n{row}" if row.lstrip().startswith("[") and before.strip() and not before.lstrip().startswith("#") else row
        for before, row in zip(["", *rows], rows, strict=False)
    )
    try:
        return spaced if tomllib.loads(spaced) == tomllib.loads(text) else text
    except tomllib.TOMLDecodeError:
        return text  # validation tells what is wrong with it


def _parse(text: str) -> Any:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise EditError(f"this is not valid TOML: {error}") from None


def _apply(document: Any, operation: Operation, where: str) -> tuple[Any, str]:
    name = operation.get("op")
    if name == "replace":
        return _parse(_text(operation, "text", where, least=0)), "the whole text replaced"
    make = _OPERATIONS.get(name) if isinstance(name, str) else None
    if make is None:
        raise EditError(f"{where}: op: expected one of {', '.join([*_OPERATIONS, 'replace'])}, found {name!r:.60}")
    try:
        return document, make(document, operation, where)
    except TOMLKitError as error:
        raise EditError(f"{where}: {error}") from None


def _text(operation: Operation, key: str, where: str, least: int = 1) -> str:
    value = operation.get(key)
    if not isinstance(value, str) or len(value) < least:
        raise EditError(f"{where}: {key}: expected text, found {'nothing' if value is None else type(value).__name__}")
    return value


def _settings(operation: Operation, where: str) -> Mapping[str, Any]:
    value = operation.get("settings")
    if not isinstance(value, Mapping) or not value:
        raise EditError(f"{where}: settings: expected an object with at least one key")
    return value


# --- operations -----------------------------------------------------------------------------------


def _add_service(document: Any, operation: Operation, where: str) -> str:
    settings = dict(_settings(operation, where))
    reals = operation.get("real_servers", settings.pop(REALS, []))
    if not isinstance(reals, list) or not all(isinstance(real, Mapping) for real in reals):
        raise EditError(f"{where}: real_servers: expected a list of objects")
    services = _services(document)
    _refuse_known(services, settings, "virtual service", where)
    table = tomlkit.table()
    _merge(table, settings)
    for real in reals:
        _append_real(table, real)
    services.append(table)
    return f"add virtual service {settings.get('label')!r}"


def _change_service(document: Any, operation: Operation, where: str) -> str:
    settings = _settings(operation, where)
    service = _find(_services(document), _text(operation, "service", where), "virtual service", where)
    if REALS in settings:
        raise EditError(f"{where}: settings: {REALS} is changed by add_real, change_real and delete_real")
    _merge(service, settings)
    return f"change virtual service {operation['service']!r}: {', '.join(settings)}"


def _clone_service(document: Any, operation: Operation, where: str) -> str:
    services = _services(document)
    settings = _settings(operation, where)
    _refuse_known(services, settings, "virtual service", where)
    twin = copy.deepcopy(_find(services, _text(operation, "service", where), "virtual service", where))
    for table in (twin, *twin.get(REALS, ()), *([twin["fallback_server"]] if "fallback_server" in twin else ())):
        table.pop("id", None)  # an identity is one thing's alone
    _merge(twin, settings)
    services.append(twin)
    return f"clone virtual service {operation['service']!r} as {settings.get('label')!r}"


def _delete_service(document: Any, operation: Operation, where: str) -> str:
    services = _services(document)
    label = _text(operation, "service", where)
    _remove(services, _find(services, label, "virtual service", where))
    if not len(services):
        document.pop(SERVICES)
        document.add(SERVICES, tomlkit.array())  # `virtual_service = []`: none, and meant
    return f"delete virtual service {label!r}"


def _add_real(document: Any, operation: Operation, where: str) -> str:
    settings = _settings(operation, where)
    service = _find(_services(document), _text(operation, "service", where), "virtual service", where)
    _refuse_known(service.get(REALS, ()), settings, f"real server in {operation['service']!r}", where)
    _append_real(service, settings)
    return f"add {operation['service']!r} / {settings.get('label')!r}"


def _change_real(document: Any, operation: Operation, where: str) -> str:
    settings = _settings(operation, where)
    _merge(_real(document, operation, where), settings)
    return f"change {operation['service']!r} / {operation['real']!r}: {', '.join(settings)}"


def _delete_real(document: Any, operation: Operation, where: str) -> str:
    real = _real(document, operation, where)
    service = _find(_services(document), operation["service"], "virtual service", where)
    _remove(service[REALS], real)
    if not len(service[REALS]):
        service.pop(REALS)
    return f"delete {operation['service']!r} / {operation['real']!r}"


def _change_global(document: Any, operation: Operation, where: str) -> str:
    settings = _settings(operation, where)
    if SERVICES in settings:
        raise EditError(f"{where}: settings: {SERVICES} is changed by add_service, change_service and delete_service")
    _merge(document, settings)
    return f"change {', '.join(settings)}"


_OPERATIONS: Final[Mapping[str, Callable[[Any, Operation, str], str]]] = MappingProxyType(
    {
        "add_service": _add_service,
        "change_service": _change_service,
        "clone_service": _clone_service,
        "delete_service": _delete_service,
        "add_real": _add_real,
        "change_real": _change_real,
        "delete_real": _delete_real,
        "change_global": _change_global,
    }
)


# --- tables ---------------------------------------------------------------------------------------


def _services(document: Any) -> Any:
    """The array of tables; ``virtual_service = []``, or nothing, becomes one."""
    found = document.get(SERVICES)
    if isinstance(found, AoT):
        return found
    if found:
        raise EditError(f"{SERVICES} is written as an inline array; write [[{SERVICES}]] tables to have it edited")
    if found is not None:
        document.pop(SERVICES)
    document.append(SERVICES, tomlkit.aot())
    return document[SERVICES]


def _label(table: Mapping[str, Any]) -> str | None:
    label = table.get("label")
    return str(label) if isinstance(label, str) else None


def _find(tables: Any, label: str, kind: str, where: str) -> Any:
    for table in tables:
        if _label(table) == label:
            return table
    raise EditError(f"{where}: there is no {kind} {label!r:.200}")


def _refuse_known(tables: Any, settings: Mapping[str, Any], kind: str, where: str) -> None:
    if any(_label(table) == settings.get("label") for table in tables if "label" in settings):
        raise EditError(f"{where}: settings.label: there is a {kind} {settings['label']!r:.200} already")


def _real(document: Any, operation: Operation, where: str) -> Any:
    service = _find(_services(document), _text(operation, "service", where), "virtual service", where)
    return _find(service.get(REALS, ()), _text(operation, "real", where), "real server", where)


def _append_real(service: Any, settings: Mapping[str, Any]) -> None:
    real = tomlkit.table()
    _merge(real, settings)
    if not isinstance(service.get(REALS), AoT):
        kept = service.pop(REALS, [])
        service.append(REALS, tomlkit.aot())
        for each in kept:
            service[REALS].append(each)
    service[REALS].append(real)


def _remove(tables: Any, table: Any) -> None:
    place = next(index for index, each in enumerate(tables) if each is table or _label(each) == _label(table))
    del tables[place]


def _merge(table: Any, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if value is None:
            table.pop(key, None)
        elif isinstance(value, Mapping):
            _merge_table(table, key, value)
        elif key in table:
            table[key] = _value(value)
        else:
            _add(table, key, value)


def _merge_table(table: Any, key: str, value: Mapping[str, Any]) -> None:
    inner = table.get(key)
    if not isinstance(inner, Mapping):
        table.pop(key, None)
        _insert(table, key, tomlkit.table())
        inner = table[key]
    _merge(inner, value)
    if not inner:
        table.pop(key)  # its last key was taken out


def _add(table: Any, key: str, value: Any) -> None:
    _insert(table, key, _value(value))


def _insert(table: Any, key: str, value: Any) -> None:
    """A new key goes before the tables inside: behind them TOML would take it for one of theirs."""
    if isinstance(value, Table | AoT):
        table.append(key, value)
        return
    tables = {name: table[name] for name in list(table) if isinstance(table[name], Table | AoT)}
    for name in tables:
        table.pop(name)
    table.append(key, value)
    for name, inner in tables.items():
        table.append(name, inner)


def _value(value: Any) -> Any:
    """JSON's values as TOML's; what TOML does not have is refused by its writer."""
    if isinstance(value, list) and any(isinstance(each, Mapping | list) or each is None for each in value):
        raise EditError("a list may hold text and numbers only")
    try:
        return tomlkit.item(value)
    except (ValueError, TypeError) as error:
        raise EditError(str(error)) from None
