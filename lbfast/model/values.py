"""How a value of the configuration is refused, and how a validator becomes a typed field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

REFUSED = "refused"


def refuse(expected: str) -> PydanticCustomError:
    """The error of a validator: it says what would be right, the caller knows what was found and where."""
    return PydanticCustomError(REFUSED, "expected {expected}", {"expected": expected})


@dataclass(frozen=True, eq=False)  # hashable whatever the schema holds: typing wants that
class Parsed:
    """An ``Annotated`` mark: ``parse`` makes the value from what the file says, ``render`` writes it back.

    ``schema`` is what the file may hold, for the JSON schema.
    """

    parse: Callable[[Any], Any]
    render: Callable[[Any], Any]
    schema: CoreSchema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse,
            json_schema_input_schema=self.schema,
            serialization=core_schema.plain_serializer_function_ser_schema(self.render, when_used="json"),
        )


def text_schema(pattern: str | None = None, *, most: int | None = None, example: str | None = None) -> CoreSchema:
    """A string in the JSON schema; the pattern is for other tools, the validator is what decides here."""
    extra = {"pydantic_js_updates": {"examples": [example]}} if example else None
    return core_schema.str_schema(pattern=pattern, max_length=most, metadata=extra)


def one_of(words: Iterable[str]) -> str:
    """``"a", "b" or "c"``: the words as an operator would type them."""
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def written(default: str) -> Any:
    """A default as the file would say it; validation makes the value of it."""
    return default
