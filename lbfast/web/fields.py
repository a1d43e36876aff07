"""Form fields made from the models of the configuration: every key, and none that there is not.  Pure.

A field's name is the key's path with dots, ``health_check.interval``.  What is typed is text; what goes into the
candidate is what the file would say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from lbfast.model.service import RealServer, VirtualService
from lbfast.model.upkeep import AlertSettings, BackupSettings, GraphSettings

Schema = dict[str, Any]

TITLES: Final = MappingProxyType(
    {
        "service:label": "Label",
        "service:address": "Virtual Service IP Address",
        "service:ports": "Ports",
        "service:mode": "Layer 7 Protocol",
        "real:label": "Label",
        "real:address": "Real Server IP Address",
        "real:port": "Real Server Port",
        "real:weight": "Weight",
        "alerts:email.host": "Mail server",
        "alerts:email.tls": "Encryption",
        "alerts:email.ca_file": "File of authorities to trust",
        "alerts:email.password_file": "File with the password",
        "alerts:webhook": "Webhook URL",
        "alerts:syslog": "Local syslog",
        "alerts:syslog_server.host": "Syslog server",
        "alerts:syslog_server.ca_file": "File of authorities to trust",
        "alerts:certificate_days": "Certificate ends in (days)",
        "alerts:table_percent": "Persistence table filled (percent)",
        "backup:every": "Time between two backups",
        "backup:keep": "How many are kept",
        "backup:passphrase_file": "File with the passphrase",
        "graphs:keep_10s": "Values of 10 seconds",
        "graphs:keep_1m": "Values of a minute",
        "graphs:keep_5m": "Values of 5 minutes",
        "graphs:keep_30m": "Values of half an hour",
        "graphs:keep_2h": "Values of two hours",
        "graphs:keep_1d": "Values of a day",
    }
)
BASIC: Final = MappingProxyType(
    {"service": ("label", "address", "ports", "mode"), "real": ("label", "address", "port", "weight")}
)
CHOICES: Final = MappingProxyType(
    {
        "tcp": "TCP Mode",
        "source_ip": "Source IP",
        "none": "None",
        "wlc": "Weighted least connections",
        "wrr": "Weighted round robin",
        "hash": "Hash of the client address",
        "until_expiry": "May return until their entry expires",
        "while_connected": "May return while they are connected",
        "new_choice": "Move with their next connection",
        "connect": "Connect to port",
        "http": "HTTP request",
        "https": "HTTPS request",
        "tls": "TLS handshake",
        "external": "External script",
        "starttls": "STARTTLS",
        "alerts:tls": "TLS",
        "udp": "UDP",
        "alerts:tcp": "TCP",
    }
)
GROUPS: Final = (
    ("Persistence", ("persistence.",)),
    ("Health Checks", ("health_check.",)),
    ("Scheduler and drain", ("scheduler", "drain_")),
    ("Fallback Server", ("fallback_server.",)),
    ("Limits and access", ("max_connections", "at_limit", "client_max", "client_limit", "allow", "deny", "slow_start")),
    (
        "Timeouts and retries",
        ("client_idle", "server_idle", "connect_timeout", "half_close", "retries", "redispatch", "passive"),
    ),
    (
        "TCP and PROXY protocol",
        ("tcp_", "keepalive", "client_speaks", "congestion", "send_proxy", "accept_proxy", "proxy_"),
    ),
    ("Other", ("",)),
)


_CAPITALS: Final = frozenset({"tcp", "sni", "tls"})


@dataclass(frozen=True)
class Field:
    """``kind``: text, number, choice, switch or list."""

    name: str
    title: str
    help: str
    kind: str
    default: str
    is_required: bool
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))


@dataclass(frozen=True)
class Form:
    """``groups`` are behind [Advanced +]."""

    basic: tuple[Field, ...]
    groups: tuple[tuple[str, tuple[Field, ...]], ...]

    @property
    def all(self) -> tuple[Field, ...]:
        return (*self.basic, *(field for _, fields in self.groups for field in fields))


@lru_cache(maxsize=4)
def form_of(kind: str) -> Form:
    """``service`` or ``real``."""
    model: type[BaseModel] = VirtualService if kind == "service" else RealServer
    fields = {field.name: field for field in _fields(kind, model.model_json_schema(), ())}
    basic = tuple(fields.pop(name) for name in BASIC[kind])
    groups = []
    for title, starts in GROUPS:
        found = tuple(fields.pop(name) for name in list(fields) if name.startswith(starts))
        if found:
            groups.append((title, found))
    return Form(basic, tuple(groups))


TABLES: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {"alerts": AlertSettings, "backup": BackupSettings, "graphs": GraphSettings}
)
_TABLE_GROUPS: Final = MappingProxyType(
    {
        "alerts": (
            ("E-mail", ("alerts.email.",)),
            ("Syslog server", ("alerts.syslog_server.",)),
            ("Webhook and syslog", ("alerts.webhook", "alerts.syslog")),
            ("What is told, and how often", ("",)),
        ),
        "backup": (("Scheduled backups", ("",)),),
        "graphs": (("How far back the graphs reach", ("",)),),
    }
)


@lru_cache(maxsize=4)
def table_form(table: str) -> Form:
    """Of a table of the configuration that belongs to no service: the names begin with the table's."""
    fields = [
        replace(field, name=f"{table}.{field.name}") for field in _fields(table, TABLES[table].model_json_schema(), ())
    ]
    groups = []
    for title, starts in _TABLE_GROUPS[table]:
        found = tuple(field for field in fields if field.name.startswith(starts))
        fields = [field for field in fields if field not in found]
        groups.append((title, found))
    return Form((), tuple(groups))


def _fields(kind: str, schema: Schema, path: tuple[str, ...]) -> Iterator[Field]:
    top = schema
    part = _at(top, path)
    required = part.get("required", ())
    for key, raw in part.get("properties", {}).items():
        inner = _resolve(top, raw)
        where = (*path, key)
        if key == "id" or key == "real_server":
            continue  # identities are made and kept; real servers have forms of their own
        if inner.get("type") == "object":
            yield from _fields(kind, top, where)
        else:
            yield _field(kind, where, raw, inner, key in required and not path)


def _at(schema: Schema, path: Sequence[str]) -> Schema:
    part = schema
    for step in path:
        part = _resolve(schema, part["properties"][step])
    return part


def _resolve(schema: Schema, part: Schema) -> Schema:
    choices = [choice for choice in part.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        part = {**{key: value for key, value in part.items() if key != "anyOf"}, **choices[0]}
    if "$ref" in part:
        target = schema["$defs"][part["$ref"].rpartition("/")[2]]
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return part


def _field(kind: str, path: tuple[str, ...], raw: Schema, part: Schema, is_required: bool) -> Field:
    name = ".".join(path)
    words = tuple(part["enum"]) if "enum" in part else (part["const"],) if "const" in part else ()
    types = {"boolean": "switch", "integer": "number", "number": "number", "array": "list"}
    return Field(
        name,
        TITLES.get(f"{kind}:{name}", _title(path[-1])),
        str(raw.get("description", "")),
        "choice" if words else types.get(str(part.get("type")), "text"),
        shown_value(part.get("default")),
        is_required,
        tuple((word, _choice(kind, word)) for word in words),
    )


def _choice(kind: str, word: str) -> str:
    """A word of the file in words; some mean something else in another table."""
    return CHOICES.get(f"{kind}:{word}") or CHOICES.get(word) or _title(word)


def _title(word: str) -> str:
    """``tcp_user_timeout`` is "TCP user timeout"; what is in capitals stays so."""
    words = word.replace("_", " ").split()
    shown = [it.upper() if it in _CAPITALS else it for it in words]
    return " ".join([shown[0][:1].upper() + shown[0][1:], *shown[1:]])


def shown_value(value: Any) -> str:
    """A value of the file as it stands in a field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def value_at(data: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = data
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def typed_values(form: Form, data: Mapping[str, Any]) -> dict[str, str]:
    """What the fields hold when a form is opened: what the file says, nothing for a default."""
    values = {field.name: shown_value(value_at(data, field.path)) for field in form.all}
    for field in form.all:
        if field.kind in ("choice", "switch") and not values[field.name]:
            values[field.name] = field.default
    return values


def posted_values(form: Form, posted: Mapping[str, Any]) -> dict[str, str]:
    """What was typed, as text; a switch that is not there is off."""
    values = {}
    for field in form.all:
        value = posted.get(field.name)
        text = value.strip()[:4_000] if isinstance(value, str) else ""
        values[field.name] = ("yes" if text else "no") if field.kind == "switch" else text
    return values


def changed_settings(form: Form, values: Mapping[str, str], before: Mapping[str, Any]) -> dict[str, Any]:
    """The keys to be written: those that differ from what the file says.  None takes a key out."""
    settings: dict[str, Any] = {}
    for field in form.all:
        old = value_at(before, field.path)
        new = _value(field, values[field.name])
        is_default = old is None and new is not None and shown_value(new) == field.default and not field.is_required
        if new == old or is_default:
            continue
        inside = settings
        for step in field.path[:-1]:
            inside = inside.setdefault(step, {})
        inside[field.path[-1]] = new
    return settings


def _value(field: Field, text: str) -> Any:
    """The file's value of what was typed; what is none stays text, and is then refused with a reason."""
    if field.kind == "switch":
        return text == "yes"
    if not text:
        return None
    if field.kind == "list":
        return [part for part in (it.strip() for it in text.replace("\n", ",").split(",")) if part]
    if field.kind == "number":
        return _number(text)
    return text


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text) if text.isascii() and len(text) < 30 else text
        except ValueError:
            continue
    return text
