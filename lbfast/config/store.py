"""From a TOML file to a validated configuration, or to every problem in it at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbfast.config.checks import Finding, check_log, check_script, check_service
from lbfast.config.clashes import Indexed, check_together
from lbfast.config.doubts import find_doubts
from lbfast.config.errors import ConfigError, KeyPath, Problem, render_value
from lbfast.config.schema import Schema, describe_type, json_schema, resolve, schema_at, table_name
from lbfast.config.source import Source, parse_source, read_source
from lbfast.config.web_checks import check_web
from lbfast.model.appliance import Config, LogSettings
from lbfast.model.service import VirtualService
from lbfast.model.values import REFUSED


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be used, and the file it came from."""

    config: Config
    source: Source
    warnings: tuple[Problem, ...] = ()

    @property
    def file(self) -> str:
        return self.source.file

    @property
    def text(self) -> str:
        return self.source.text

    def problem(self, path: KeyPath, found: str, expected: str) -> Problem:
        """A problem that only shows on this machine, tied to the line of its key, to be raised in a ConfigError.

        ``path`` is as in the file: ``("virtual_service", 0, "address")``.
        """
        return self.source.problem(path, found, expected)


def load(path: str | os.PathLike[str]) -> Loaded:
    """Read, parse and validate a file; ConfigError with everything that is wrong."""
    return validate(read_source(path))


def parse(text: str, file: str = "configuration") -> Loaded:
    """The same for a text that is not, or not yet, in a file."""
    return validate(parse_source(text, file))


def validate(source: Source) -> Loaded:
    """Validate parsed TOML; ConfigError with everything that is wrong, in the order of the file."""
    problems: list[Problem] = []
    config: Config | None = None
    try:
        config = Config.model_validate(source.data)
        services: Indexed = list(enumerate(config.virtual_services))
        log: LogSettings | None = config.log
    except ValidationError as error:
        schema = json_schema()
        problems = [_explain(source, schema, detail) for detail in error.errors(include_url=False)]
        services, log = list(_valid_services(source.data)), _valid_log(source.data)
    problems += [source.problem(it.path, it.found, it.expected) for it in _contradictions(services, log)]
    problems += [source.problem(it.path, it.found, it.expected) for it in check_web(source.data, config, services)]
    if problems or config is None:
        raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0))
    doubts = [source.problem(it.path, it.found, it.expected) for it in find_doubts(config)]
    return Loaded(config, source, tuple(doubts))


def _contradictions(services: Indexed, log: LogSettings | None) -> Iterator[Finding]:
    if log is not None:
        yield from check_log(log)
    for index, service in services:
        yield from check_service(("virtual_service", index), service)
        yield from check_script(("virtual_service", index), service, _is_executable)
    yield from check_together(services)


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _valid_services(data: Mapping[str, Any]) -> Iterator[tuple[int, VirtualService]]:
    """Of a file with errors, the services without any, so that their contradictions are told in the same breath."""
    tables = data.get("virtual_service")
    for index, table in enumerate(tables if isinstance(tables, list) else ()):
        try:
            yield index, VirtualService.model_validate(table)
        except ValidationError:
            continue


def _valid_log(data: Mapping[str, Any]) -> LogSettings | None:
    try:
        return LogSettings.model_validate(data.get("log", {}))
    except ValidationError:
        return None


def _explain(source: Source, schema: Schema, detail: ErrorDetails) -> Problem:
    path: KeyPath = detail["loc"]
    part = schema_at(schema, path)
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(source, schema_at(schema, path[:-1]), path)
        case "missing":
            expected = f"{_example(schema, part, path)}: {part.get('description', '')}".rstrip(": ")
            return source.problem(path, "nothing", expected)
        case kind if kind == REFUSED:
            expected = detail["ctx"]["expected"]
        case _:
            expected = describe_type(schema, part, path)
    return source.problem(path, render_value(detail["input"]), expected)


def _example(schema: Schema, part: Schema, path: KeyPath) -> str:
    if resolve(schema, part.get("items", {})).get("type") == "object":
        return f"at least one [[{table_name(path)}]]"
    examples = part.get("examples")
    return f"a value, such as {render_value(examples[0])}" if examples else describe_type(schema, part, path)


def _unknown_key(source: Source, table: Schema, path: KeyPath) -> Problem:
    known: Iterable[str] = table.get("properties", {})
    key = str(path[-1])
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    expected = f'"{near[0]}"' if near else f"one of {', '.join(known)}"
    return source.problem(path, "an unknown key", expected)
