"""The control protocol as pure functions: JSON lines in and out, places, error codes.

Everything here works on bytes and plain values, so that the client, the server
and the tests share one framing and one list of errors.  No heavy imports: the
command line starts with this module.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lbfast.config.paths import runtime_dir as runtime_dir
from lbfast.config.paths import state_dir as state_dir

MAX_REQUEST: Final = 1 << 20  # bytes of one request line
MAX_PATH: Final = 107  # sun_path has 108 bytes, one of them the closing zero
SOCKET_NAME: Final = "control.sock"
LONGEST_NAME: Final = 120  # of the person for whom a program asks

ERROR_CODES: Final = frozenset(
    {
        "no_such_service",
        "no_such_real",
        "bad_argument",
        "no_persistence",
        "table_full",
        "busy",
        "unknown_verb",
        "bad_request",
        "bad_config",
        "conflict",
        "forbidden",
        "refused",
        "no_such_version",
        "nothing_pending",
        "internal",
    }
)


class ControlError(Exception):
    """A verb was refused.  ``code`` is for programs, ``message`` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Request:
    """A well-formed request; whether verb and arguments make sense is decided later."""

    verb: str
    args: dict[str, Any]
    by: str = ""  # the person for whom a process of lbfast's own asks


def socket_path() -> Path:
    return runtime_dir() / SOCKET_NAME


def check_path(path: Path | str) -> str:
    """The path as text, or ValueError when the kernel has no room for it."""
    text = os.fspath(path)
    size = len(os.fsencode(text))
    if size > MAX_PATH:
        raise ValueError(
            f"{text}: the path has {size} bytes, a unix socket allows {MAX_PATH}; "
            f"set LBFAST_RUNTIME_DIR to a shorter directory"
        )
    return text


def encode(value: object) -> bytes:
    """One line.  ASCII only, so that no label can break a terminal or a reader."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def encode_request(verb: str, args: dict[str, Any], by: str = "") -> bytes:
    line = encode({"verb": verb, "args": args} | ({"by": by} if by else {}))
    if len(line) > MAX_REQUEST:
        raise ControlError("bad_request", f"the request has {len(line)} bytes, at most {MAX_REQUEST} are allowed")
    return line


def encode_result(result: object) -> bytes:
    return encode({"ok": True, "result": result})


def encode_error(code: str, message: str) -> bytes:
    return encode({"ok": False, "error": {"code": code, "message": message}})


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def decode_request(line: bytes) -> Request:
    """The request in a line; ControlError ``bad_request`` says what is wrong with it."""
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ControlError("bad_request", f"the request is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ControlError("bad_request", "the request is nested too deeply") from None
    except ValueError as error:
        raise ControlError("bad_request", f"the request is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ControlError("bad_request", f"a request is a JSON object, found {json_type(value)}")
    unknown = sorted(set(value) - {"verb", "args", "by"})
    if unknown:
        raise ControlError("bad_request", f"a request has the keys verb, args and by, found also {unknown[0]!r}")
    verb = value.get("verb")
    if not isinstance(verb, str):
        raise ControlError("bad_request", "a request needs a verb, and it must be text")
    args = value.get("args", {})
    if not isinstance(args, dict):
        raise ControlError("bad_request", f"args must be a JSON object, found {json_type(args)}")
    by = value.get("by", "")
    if not isinstance(by, str) or len(by) > LONGEST_NAME or not by.isprintable():
        raise ControlError("bad_request", f"by must be a name of at most {LONGEST_NAME} printable characters")
    return Request(verb, args, by)


def decode_answer(line: bytes) -> Any:
    """The result in an answer; ControlError as the server said it."""
    try:
        value = json.loads(line)
        if value["ok"] is True:
            return value["result"]
        code, message = str(value["error"]["code"]), str(value["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ControlError("internal", f"the answer is not of this protocol: {line[:80]!r} ({error})") from None
    raise ControlError(code, message)


def json_type(value: object) -> str:
    """The word people use for the type of a decoded JSON value."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
