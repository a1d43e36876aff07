"""The JSON schema of the configuration, and what it says about one key."""

from __future__ import annotations

from typing import Any

from lbfast.config.errors import KeyPath
from lbfast.model.appliance import Config
from lbfast.model.values import one_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Draft 2020-12, with a description on every key."""
    return {"$schema": DIALECT, **Config.model_json_schema()}


def schema_at(schema: Schema, path: KeyPath) -> Schema:
    """The part of the schema that rules the value at ``path``; empty when there is none."""
    part = resolve(schema, schema)
    for step in path:
        part = part.get("items", {}) if isinstance(step, int) else part.get("properties", {}).get(step, {})
        part = resolve(schema, part)
    return part


def resolve(schema: Schema, part: Schema) -> Schema:
    """Follow a reference, and take "this or null" for this: TOML has no null."""
    choices = [choice for choice in part.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        part = {**{key: value for key, value in part.items() if key != "anyOf"}, **choices[0]}
    if "$ref" in part:
        target = schema["$defs"][part["$ref"].rpartition("/")[2]]
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return part


def table_name(path: KeyPath) -> str:
    """The name that a table header carries: ``virtual_service.real_server``."""
    return ".".join(step for step in path if isinstance(step, str))


def describe_type(schema: Schema, part: Schema, path: KeyPath) -> str:
    """What a value must be, in words: ``a whole number from 0 to 256``."""
    if "enum" in part:
        return one_of(part["enum"])
    if "const" in part:
        return one_of([part["const"]])
    kind = part.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(part, "minimum", "maximum")
    if kind == "string":
        return "text" + (f" of at most {part['maxLength']} characters" if "maxLength" in part else "")
    if kind == "array":
        if resolve(schema, part.get("items", {})).get("type") == "object":
            return f"tables, each begun by [[{table_name(path)}]]"
        return "an array, in square brackets" + (f", of at most {part['maxItems']}" if "maxItems" in part else "")
    return {"boolean": "true or false", "object": "a table"}.get(str(kind), "another value")


def _bounds(part: Schema, least: str, most: str) -> str:
    if least in part and most in part:
        return f" from {part[least]} to {part[most]}"
    if most in part:
        return f" up to {part[most]}"
    return f" from {part[least]}" if least in part else ""
