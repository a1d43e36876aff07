"""The REST API's own page of documentation, made from its OpenAPI document; nothing is loaded from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lbfast.web.render import page


@dataclass(frozen=True)
class Parameter:
    name: str
    place: str
    type: str
    required: bool
    text: str


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    tag: str
    text: str
    parameters: tuple[Parameter, ...]


async def api_page(request: Request, operations: list[Operation]) -> Response:
    tags = list(dict.fromkeys(operation.tag for operation in operations))
    groups = [(tag, [it for it in operations if it.tag == tag]) for tag in tags]
    return await page(request, "api.html", groups=groups)


def operations_of(document: dict[str, Any]) -> list[Operation]:
    """What the page shows of an OpenAPI document."""
    place = document["servers"][0]["url"] if document.get("servers") else ""
    return [
        Operation(
            method.upper(),
            place + path,
            (operation.get("tags") or ["other"])[0],
            operation.get("description") or operation.get("summary", ""),
            (*_parameters(document, operation), *_body(document, operation)),
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _parameters(document: dict[str, Any], operation: dict[str, Any]) -> list[Parameter]:
    return [
        Parameter(
            it["name"], it["in"], _type(document, it["schema"]), bool(it.get("required")), it.get("description", "")
        )
        for it in operation.get("parameters", ())
    ]


def _body(document: dict[str, Any], operation: dict[str, Any]) -> list[Parameter]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = _resolved(document, content.get("application/json", {}).get("schema", {}))
    needed = schema.get("required", ())
    return [
        Parameter(name, "body", _type(document, part), name in needed, part.get("description", ""))
        for name, part in schema.get("properties", {}).items()
    ]


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself: references followed, "this or null" taken for this."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _resolved(document, choice)
    if "$ref" in schema:
        found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    schema = _resolved(document, schema)
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type", "any"))
