"""docs/configuration.md, made from the schema: ``python -m lbfast.config.reference > docs/configuration.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lbfast.config.schema import Schema, describe_type, json_schema, resolve

_INTRODUCTION = """\
# Configuration

One TOML file, read once by `lbfast run --config FILE` and checked by `lbfast check FILE`. Nothing of a file with an
error in it is applied; every error is told with file, line, key, what was found and what would be right.
`lbfast schema` prints the same as a JSON schema.

This page is made from the models that check the file: `python -m lbfast.config.reference > docs/configuration.md`.

Durations are text with a unit: `"500ms"`, `"4s"`, `"30m"`, `"12h"`, `"1d"`; at most 24 days. Networks are CIDR:
`"10.0.0.0/8"`; a single address is a network of one. An id that is left out is made at the first start and kept in
`ids.json` in the state directory, by label.

```toml
[[virtual_service]]
label = "Symphony"
address = "192.168.85.150"
ports = "443"

  [[virtual_service.real_server]]
  label = "Symphony Server 1"
  address = "192.168.85.200"
```
"""


def render_reference() -> str:
    """The whole page."""
    schema = json_schema()
    return "\n".join([_INTRODUCTION, *_render_table(schema, schema, ())]).rstrip() + "\n"


def _render_table(schema: Schema, table: Schema, path: tuple[str, ...]) -> Iterator[str]:
    yield f"## {_title(path, schema)}\n"
    yield f"{table['description']}\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    required = table.get("required", ())
    inner: list[tuple[Schema, tuple[str, ...]]] = []
    for key, raw in table["properties"].items():
        part = resolve(schema, raw)
        child = _table_in(schema, part)
        if child is not None:
            inner.append((child, (*path, key)))
        cells = [
            f"`{key}`",
            _type(schema, part, (*path, key)),
            _default(part, key in required, child),
            raw["description"],
        ]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
    for child, where in inner:
        yield from _render_table(schema, child, where)


def _table_in(schema: Schema, part: Schema) -> Schema | None:
    if part.get("type") == "array":
        part = resolve(schema, part["items"])
    return part if part.get("type") == "object" else None


def _title(path: tuple[str, ...], schema: Schema) -> str:
    if not path:
        return "Top level"
    part: Schema = schema
    for key in path:
        part = resolve(schema, part["properties"][key])
        is_array = part.get("type") == "array"
        part = resolve(schema, part["items"]) if is_array else part
    name = ".".join(path)
    return f"`[[{name}]]`" if is_array else f"`[{name}]`"


def _type(schema: Schema, part: Schema, path: tuple[str, ...]) -> str:
    if part.get("pattern", "").endswith("(ms|s|m|h|d)$"):
        return "duration"
    if part.get("format") == "uuid":
        return "UUID"
    if "anyOf" in part:
        return " or ".join(_type(schema, choice, path) for choice in part["anyOf"])
    if part.get("type") == "array" and resolve(schema, part["items"]).get("type") != "object":
        return "array of text"
    if part.get("type") == "string" and "enum" not in part and "const" not in part:
        return "text"
    return describe_type(schema, part, path)


def _default(part: Schema, is_required: bool, child: Schema | None) -> str:
    if is_required:
        return "required"
    default: Any = part.get("default")
    if child is not None and default is not None:
        return "see below" if isinstance(default, dict) else "none"
    return "" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"


if __name__ == "__main__":
    print(render_reference(), end="")
