"""The verbs of the web interface's users and keys: passwd and apikey; they work whether lbfast runs or not.

Whoever may write to the state directory may use them: the console cannot be locked out.
"""

from __future__ import annotations

import getpass
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lbfast.cli import out
from lbfast.cli.clean import clean, quote, when
from lbfast.cli.errors import OK, BadUsage, Refused
from lbfast.cli.options import Json
from lbfast.cli.web_store import audit, web_store, who
from lbfast.model.durations import LONGEST_MS, parse_duration
from lbfast.web.keys import ApiKey, ApiKeys
from lbfast.web.passwords import why_weak
from lbfast.web.setup import SetupCode
from lbfast.web.store import folder
from lbfast.web.users import FIRST_USER, UserFault, Users

_LARGEST = 4096  # bytes of a password file


def passwd(
    user: Annotated[str, Parameter(name="USER", help="A user of the web interface.")] = FIRST_USER,
    /,
    *,
    password_file: Annotated[
        Path | None,
        Parameter(
            name="--password-file",
            help="Read the password from this file; - is standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    setup: Annotated[
        bool, Parameter(name="--setup", negative="", help="Print the one-time setup code instead.")
    ] = False,
    no_totp: Annotated[
        bool, Parameter(name="--no-totp", negative="", help="Switch the user's second factor off as well.")
    ] = False,
) -> int:
    """Set a password of the web interface; whoever is logged in as this user is logged out."""
    with web_store() as store:
        users = Users(store)
        users.ensure_first()
        if setup:
            return _show_setup(users, store)
        try:
            users.get(user)
            password = _password(password_file)
            if weak := why_weak(password, user):
                raise BadUsage(weak)
            users.set_password(user, password)
            if no_totp:
                users.set_totp(user, None)
        except UserFault as fault:
            raise Refused(str(fault)) from None
        SetupCode(store, folder()).forget()
        audit("passwd", f"password of {user} set on the console")
    out.line(f"password of {quote(user)} set; whoever was logged in as this user is logged out")
    return OK


def create(
    *,
    role: Annotated[str, Parameter(name="--role", help="What it may do: configure, operate or report.")],
    expires: Annotated[
        str | None, Parameter(name="--expires", help="How long it is valid, e.g. 90d; default: no end.")
    ] = None,
    label: Annotated[str, Parameter(name="--label", help="What it is for.", allow_leading_hyphen=True)] = "",
    json: Json = False,
) -> int:
    """Make an API key; it is shown once."""
    with web_store() as store:
        try:
            key, secret = ApiKeys(store).create(role, f"{who()} on the console", label, _lives(expires))
        except ValueError as error:
            raise BadUsage(str(error)) from None
        audit("apikey create", f"key {key.id}, role {role}")
    if json:
        out.print_json({"id": key.id, "key": secret, **_shown(key)})
        return OK
    out.line(f"key {key.id}, role {key.role}, " + (f"until {when(key.expires)}" if key.expires else "without an end"))
    out.line(secret)
    return OK


def list_keys(*, json: Json = False) -> int:
    """The API keys, without their secrets."""
    with web_store() as store:
        keys = ApiKeys(store).all()
    if json:
        out.print_json({"keys": [{"id": key.id, **_shown(key)} for key in keys]})
        return OK
    for key in keys:
        end = f"until {when(key.expires)}" if key.expires else "no end"
        used = f"last used {when(key.used)}" if key.used else "never used"
        out.line(f"{key.id}  {key.role:<9}  {end}, {used}  {clean(key.label)}")
    if not keys:
        out.line("no keys")
    return OK


def revoke(identity: Annotated[str, Parameter(name="ID", help="An id of `lbfast apikey list`.")], /) -> int:
    """End an API key at once."""
    with web_store() as store:
        if not ApiKeys(store).revoke(identity):
            raise Refused(f"there is no key {quote(identity)}; `lbfast apikey list` names those there are")
        audit("apikey revoke", f"key {identity}")
    out.line(f"key {clean(identity)} is revoked")
    return OK


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "role": key.role,
        "label": key.label,
        "created": key.created,
        "created_by": key.created_by,
        "expires": key.expires,
        "used": key.used,
    }


def _lives(text: str | None) -> timedelta | None:
    if text is None:
        return None
    days = text.removesuffix("d")
    if text.endswith("d") and days.isdigit() and 1 <= int(days) <= 3650:  # longer than other durations may be
        return timedelta(days=int(days))
    try:
        milliseconds = parse_duration(text)
    except ValueError:
        milliseconds = 0
    if not 1000 <= milliseconds <= LONGEST_MS:
        raise BadUsage(f"--expires takes a time such as 12h or 90d, at most 3650d, got {clean(text)}")
    return timedelta(milliseconds=milliseconds)


def _password(file: Path | None) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise BadUsage("there is no terminal to ask for the password: use --password-file FILE, or - for stdin")
        password = getpass.getpass("New password: ")
        if getpass.getpass("The same again: ") != password:
            raise BadUsage("the two passwords differ; nothing was changed")
        return password
    raw = sys.stdin.buffer.read(_LARGEST + 1) if str(file) == "-" else file.read_bytes()
    if len(raw) > _LARGEST:
        raise BadUsage(f"{clean(file)} is too large to hold a password")
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadUsage(f"{clean(file)} is not UTF-8 text") from None


def _show_setup(users: Users, store: sqlite3.Connection) -> int:
    if not users.needs_setup():
        raise Refused("a password is set already; `lbfast passwd USER` sets another one")
    out.line(SetupCode(store, folder()).ensure())
    return OK
