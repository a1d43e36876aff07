"""The JSON schema agrees with the models, and the reference page agrees with the schema."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lbfast.config.reference import render_reference
from lbfast.config.schema import json_schema, schema_at
from lbfast.config.store import load
from lbfast.model.appliance import Config

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "packaging/examples/symphony.toml"


def tables(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"top level": schema, **schema["$defs"]}


def test_it_is_a_valid_schema_of_the_dialect_it_names() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_every_key_has_a_description_and_every_table_is_closed() -> None:
    for name, table in tables(json_schema()).items():
        assert table["additionalProperties"] is False, name
        for key, part in table["properties"].items():
            assert len(part.get("description", "")) > 8, f"{name}.{key}"


def test_the_example_and_every_default_are_valid() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(tomllib.loads(EXAMPLE.read_text()))
    validator.validate(load(EXAMPLE).config.model_dump(mode="json"))


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 0},
        {"workers": "2"},
        {"wrokers": 2},
        {"virtual_service": [{"label": "A", "address": "192.0.2.1"}]},
        {"virtual_service": [{"label": "A", "address": "192.0.2.1", "ports": "44x"}]},
        {"virtual_service": [{"label": "A", "address": "192.0.2.1", "ports": "443", "connect_timeout": "4 s"}]},
        {"virtual_service": [{"label": "A", "address": "192.0.2.1", "ports": "443", "scheduler": "rr"}]},
        {"virtual_service": [{"label": "A", "address": "192.0.2.1", "ports": "443", "id": 5}]},
    ],
)
def test_schema_and_models_refuse_alike(change: dict[str, Any]) -> None:
    data = {"virtual_service": [], **change}
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)
    with pytest.raises(ValueError):
        Config.model_validate(data)


def test_parts_are_found_by_the_path_of_a_key() -> None:
    schema = json_schema()
    assert schema_at(schema, ("virtual_service", 3, "real_server", 1, "weight"))["maximum"] == 256
    assert schema_at(schema, ("virtual_service", 0, "fallback_server", "port"))["maximum"] == 65_535
    assert schema_at(schema, ("nothing", "here")) == {}


def test_the_reference_page_is_up_to_date() -> None:
    page = (TOP / "docs/configuration.md").read_text()
    assert page == render_reference(), "run: python -m lbfast.config.reference > docs/configuration.md"


def test_the_reference_page_names_every_key() -> None:
    page = render_reference()
    for table in tables(json_schema()).values():
        for key in table["properties"]:
            assert f"| `{key}` |" in page
