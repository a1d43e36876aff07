"""Words of the configuration: labels, names of things on this machine, identities, enumerations."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import ip_address
from typing import Annotated, Any
from uuid import UUID

from pydantic_core import core_schema

from lbfast.model.state import Word
from lbfast.model.values import Parsed, one_of, refuse, text_schema

LONGEST_LABEL = 200
FALLBACK_LABEL = "fallback"
"""How the fallback server is called wherever a real server is named; no real server may have this label."""

# Newlines and other controls would break every line-based output; the rest of Unicode is an output's job to escape.
_FORBIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_LABEL = f"a label of 1 to {LONGEST_LABEL} characters, without line breaks or control characters"
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_ALGORITHM = re.compile(r"[a-z0-9_]{1,15}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?")
_HTTP_PATH = re.compile(r"/[!-~]{0,2047}")
_UUID = 'an identity such as "0b5e4f0a-6a3c-4c0e-9d55-0d2f6a1f7c11"; leave it out and one is made and kept'


def _parse_label(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse(_LABEL)
    label = unicodedata.normalize("NFC", value)  # so that what looks the same is the same
    if label != label.strip():
        raise refuse("a label without spaces at its ends")
    if not 1 <= len(label) <= LONGEST_LABEL:
        raise refuse(f"{_LABEL}; this one has {len(label)}")
    if any(unicodedata.category(character) in _FORBIDDEN_CATEGORIES for character in label):
        raise refuse(_LABEL)
    return label


def _parse_real_label(value: Any) -> str:
    label = _parse_label(value)
    if label == FALLBACK_LABEL:
        raise refuse("another label: this one always means the fallback server")
    return label


def _parse_uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        identity = UUID(value) if isinstance(value, str) else None
    except ValueError:
        identity = None
    if identity is None or identity.int == 0 or str(identity) != value.lower():
        raise refuse(_UUID)
    return identity


def _matching(pattern: re.Pattern[str], expected: str, example: str) -> Parsed:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise refuse(expected)
        return value

    return Parsed(parse, str, text_schema(f"^{pattern.pattern}$", example=example))


def _parse_server_name(value: Any) -> str:
    """A name, or an address in its shortest form."""
    if isinstance(value, str):
        try:
            return str(ip_address(value))
        except ValueError:
            if _HOST.fullmatch(value) and not re.fullmatch(r"[0-9.]+", value):
                return str(value)
    raise refuse('a host name or an IP address, such as "logs.trust.nhs.uk"')


def _parse_file_path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or len(value) > 4_000:
        raise refuse('an absolute path: one that begins with "/"')
    return value


def _parse_regex(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 1_000:
        raise refuse("a regular expression of 1 to 1000 characters")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise refuse(f"a regular expression: {error}") from None
    return value


def words(enumeration: type[Word]) -> Parsed:
    """The mark of a field that holds a member of an enumeration, written as its word."""
    members = {str(member): member for member in enumeration}

    def parse(value: Any) -> Word:
        if isinstance(value, enumeration):
            return value
        if not isinstance(value, str) or value not in members:
            raise refuse(one_of(members))
        return members[value]

    return Parsed(parse, str, core_schema.literal_schema(list(members)))


Label = Annotated[str, Parsed(_parse_label, str, text_schema(most=LONGEST_LABEL, example="Symphony"))]
RealLabel = Annotated[str, Parsed(_parse_real_label, str, text_schema(most=LONGEST_LABEL, example="Symphony Server 1"))]
Identity = Annotated[UUID, Parsed(_parse_uuid, str, core_schema.uuid_schema())]
CongestionControl = Annotated[str, _matching(_ALGORITHM, 'the name of a congestion control, such as "cubic"', "cubic")]
InterfaceName = Annotated[str, _matching(_INTERFACE, 'the name of a network interface, such as "eth0"', "eth0")]
UserName = Annotated[str, _matching(_ACCOUNT, 'the name of a user, such as "lbfast"', "lbfast")]
GroupName = Annotated[str, _matching(_ACCOUNT, 'the name of a group, such as "lbfast"', "lbfast")]
HostName = Annotated[str, _matching(_HOST, 'a host name, such as "symphony.trust.nhs.uk"', "symphony.trust.nhs.uk")]
ServerName = Annotated[str, Parsed(_parse_server_name, str, text_schema(most=253, example="logs.trust.nhs.uk"))]
HttpPath = Annotated[
    str,
    _matching(_HTTP_PATH, 'a path that begins with "/" and has no spaces (write %20), such as "/health"', "/health"),
]
FilePath = Annotated[str, Parsed(_parse_file_path, str, text_schema("^/", example="/var/log/lbfast/connections.log"))]
RegularExpression = Annotated[str, Parsed(_parse_regex, str, text_schema(most=1_000))]
