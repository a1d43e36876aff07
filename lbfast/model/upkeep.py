"""What lbfast does for those who look after it: alerts, and backups on schedule."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, Strict

from lbfast.model.duration_types import Duration, PositiveDuration
from lbfast.model.health_check import SETTINGS, Port
from lbfast.model.values import Parsed, refuse, text_schema, written
from lbfast.model.words import FilePath, HostName

_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,253}")


def _parse_mail(value: Any) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value) or not value.isascii():
        raise refuse('an e-mail address, such as "lbfast@trust.nhs.uk"')
    return value


def _parse_url(value: Any) -> str:
    expected = 'an http or https URL, such as "https://chat.trust.nhs.uk/hooks/lbfast"'
    if (
        not isinstance(value, str)
        or len(value) > 2_000
        or not value.isascii()
        or not value.isprintable()
        or " " in value
    ):
        raise refuse(expected)
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise refuse(expected)
    return value


MailAddress = Annotated[str, Parsed(_parse_mail, str, text_schema(most=318, example="lbfast@trust.nhs.uk"))]
Url = Annotated[
    str, Parsed(_parse_url, str, text_schema("^https?://", most=2_000, example="https://chat.example/hook"))
]


class MailSettings(BaseModel):
    """Alerts by e-mail."""

    model_config = SETTINGS

    host: HostName = Field(description="Name or IPv4 address of the mail server.")
    port: Port | None = Field(
        default=None, description="Its port. Default: 587 for starttls, 465 for tls, 25 for none."
    )
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is encrypted; the server's certificate is checked."
    )
    ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authorities to trust. Default: those of the system."
    )
    user: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Name to log in with. Default: without a login."
    )
    password_file: FilePath | None = Field(default=None, description="File that holds the password of user.")
    sender: MailAddress = Field(description="Address that alerts come from.")
    recipients: Annotated[tuple[MailAddress, ...], Strict(False), Field(min_length=1, max_length=50)] = Field(
        description="Addresses that alerts go to."
    )


class AlertSettings(BaseModel):
    """Who is told when something is wrong, and how often at most. Without email, webhook and syslog: nobody."""

    model_config = SETTINGS

    email: MailSettings | None = Field(default=None, description="Alerts by e-mail.")
    webhook: Url | None = Field(default=None, description="URL that each alert is posted to, as JSON.")
    syslog: bool = Field(default=False, description="Alerts to /dev/log, severity warning.")
    group_wait: Duration = Field(
        default=written("10s"), description="What happens to a virtual service within this time is one message."
    )
    repeat_after: PositiveDuration = Field(
        default=written("5m"), description="Between two messages about the same virtual service passes at least this."
    )
    most_per_hour: int = Field(
        default=30, ge=1, le=10_000, description="Most messages an hour; what is beyond is counted and the count told."
    )
    certificate_days: int = Field(
        default=30,
        ge=0,
        le=365,
        description="A real server's certificate that ends in so many days. 0 = never told.",
    )
    table_percent: int = Field(
        default=90, ge=0, le=100, description="A persistence table that is so full, in percent. 0 = never told."
    )

    @property
    def is_on(self) -> bool:
        """Whether anybody is told."""
        return self.email is not None or self.webhook is not None or self.syslog


class BackupSettings(BaseModel):
    """Backups on schedule, kept in the state directory."""

    model_config = SETTINGS

    every: PositiveDuration | None = Field(default=None, description="Time between two. Default: none are made.")
    keep: int = Field(default=14, ge=1, le=100, description="How many scheduled ones are kept.")
    passphrase_file: FilePath | None = Field(
        default=None, description="File whose text encrypts them. Default: not encrypted."
    )
