"""One configuration file as read: its text, its raw data, and problems tied to their lines."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lbfast.config.errors import ConfigError, KeyPath, Problem, printable, printable_whole, render_key
from lbfast.config.lines import Lines

MOST_BYTES = 64 * 1024 * 1024
_READABLE = "a readable TOML file"
_REPEATS = ("Cannot overwrite a value", "Cannot declare", "Duplicate inline table key", "Cannot mutate")


@dataclass(frozen=True)
class Source:
    """A file whose TOML is well formed; nothing is said yet of its keys."""

    file: str
    text: str
    data: Mapping[str, Any] = field(repr=False)

    @cached_property
    def lines(self) -> Lines:
        """Made on first use: only somebody who reports something pays for it."""
        return Lines(self.text)

    def problem(self, path: KeyPath, found: str, expected: str) -> Problem:
        """What is wrong at ``path``, e.g. ("virtual_service", 0, "address")."""
        return Problem(self.file, self.lines.line(path), render_key(path, self.data), found, expected, path)


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read and parse a file; ConfigError for whatever is not a regular file of well-formed UTF-8 TOML."""
    file = os.fspath(path)
    return parse_source(_decode(_read(file), printable_whole(file)), printable_whole(file))


def parse_source(text: str, file: str) -> Source:
    """Parse a text; ``file`` is what errors call it."""
    try:
        return Source(file, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_problems(text, file, str(error))) from None
    except RecursionError:
        found = "arrays or tables nested hundreds deep"
        raise ConfigError([Problem(file, None, "", found, "the few levels that the configuration has")]) from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError([Problem(file, None, "", printable(str(error)), "valid TOML")]) from None


def _read(file: str) -> bytes:
    try:
        # Non-blocking, or opening a named pipe would wait for its writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    try:
        _refuse_odd_file(file, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(MOST_BYTES)
    except OSError as error:
        raise _unreadable(file, error) from None
    finally:
        os.close(descriptor)


def _refuse_odd_file(file: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = "a directory" if stat.S_ISDIR(status.st_mode) else "something that is not a regular file"
        raise ConfigError([Problem(printable_whole(file), None, "", found, _READABLE)])
    if status.st_size > MOST_BYTES:
        expected = f"at most {MOST_BYTES // 1024 // 1024} MiB of configuration"
        raise ConfigError([Problem(printable_whole(file), None, "", f"{status.st_size} bytes", expected)])


def _unreadable(file: str, error: OSError | ValueError) -> ConfigError:
    found = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError([Problem(printable_whole(file), None, "", str(found).lower(), _READABLE)])


def _decode(content: bytes, file: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError([Problem(file, 1, "", "text in UTF-16", "text in UTF-8: save the file with that encoding")])
    try:
        text = content.decode("utf-8-sig")  # some editors put a mark at the start
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x}, which is not UTF-8"
        expected = "text in UTF-8: save the file with that encoding"
        raise ConfigError([Problem(file, line, "", found, expected)]) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError([Problem(file, line, "", "a NUL byte", "text: the file may be damaged")])
    return text


def _syntax_problems(text: str, file: str, message: str) -> list[Problem]:
    if message.startswith(_REPEATS):
        problems = [
            Problem(
                file,
                line,
                render_key(path, None),
                f"the key a second time (first on line {first})",
                "each key and table once",
                path,
            )
            for path, line, first in Lines(text).repeated()
        ]
        if problems:
            return problems
    reason, line, column = _place(text, message)
    rows = text.splitlines()
    row = rows[line - 1].strip() if line <= len(rows) else ""
    found = f"`{printable(row)}`" if row else "the end of the file"
    where = f" at column {column}" if column else ""
    return [Problem(file, line, "", found, f"valid TOML{where}: {reason[:1].lower()}{printable(reason[1:])}")]


def _place(text: str, message: str) -> tuple[str, int, int]:
    """(reason, line, column) of the parser's message "Reason (at line 3, column 5)"."""
    reason, _, place = message.rstrip(")").rpartition(" (at ")
    numbers = [int(word) for word in place.replace(",", "").split() if word.isdigit()]
    if len(numbers) == 2:
        return reason, numbers[0], numbers[1]
    return reason or message, text.count("\n") + 1, 0
