"""What lbfast does for those who look after it: alerts, backups on schedule, and the past for graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, Strict

from lbfast.model.duration_types import Duration, PositiveDuration, duration_type
from lbfast.model.health_check import SETTINGS, Port
from lbfast.model.series import DAY, LEVELS, Level, Levels
from lbfast.model.values import Parsed, refuse, text_schema, written
from lbfast.model.words import FilePath, HostName, ServerName

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


SYSLOG_PORTS: Final[Mapping[str, int]] = MappingProxyType({"udp": 514, "tcp": 601, "tls": 6514})
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


class SyslogServer(BaseModel):
    """Alerts to a syslog server, as RFC 5424 has them: facility daemon, severity warning, or notice for good news."""

    model_config = SETTINGS

    host: ServerName = Field(description="Name or IP address of the syslog server.")
    port: Port | None = Field(default=None, description="Its port. Default: 514 for udp, 601 for tcp, 6514 for tls.")
    protocol: Literal["udp", "tcp", "tls"] = Field(
        default="udp",
        description="With udp nobody learns that a record was lost. With tls the server's certificate is checked.",
    )
    ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authorities to trust, for tls. Default: those of the system."
    )

    @property
    def port_number(self) -> int:
        """The port that is sent to."""
        return self.port or SYSLOG_PORTS[self.protocol]


class AlertSettings(BaseModel):
    """Who is told when something is wrong, and how often at most. Without a way to tell it: nobody."""

    model_config = SETTINGS

    email: MailSettings | None = Field(default=None, description="Alerts by e-mail.")
    webhook: Url | None = Field(default=None, description="URL that each alert is posted to, as JSON.")
    syslog: bool = Field(default=False, description="Alerts to /dev/log, severity warning.")
    syslog_server: SyslogServer | None = Field(default=None, description="Alerts to a syslog server.")
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
        description="A certificate that ends in so many days: of a real server, of the web interface. 0 = never told.",
    )
    table_percent: int = Field(
        default=90, ge=0, le=100, description="A persistence table that is so full, in percent. 0 = never told."
    )

    @property
    def is_on(self) -> bool:
        """Whether anybody is told."""
        return self.syslog or any(way is not None for way in (self.email, self.webhook, self.syslog_server))


class BackupSettings(BaseModel):
    """Backups on schedule, kept in the state directory."""

    model_config = SETTINGS

    every: PositiveDuration | None = Field(default=None, description="Time between two. Default: none are made.")
    keep: int = Field(default=14, ge=1, le=100, description="How many scheduled ones are kept.")
    passphrase_file: FilePath | None = Field(
        default=None, description="File whose text encrypts them. Default: not encrypted."
    )


HOUR: Final = 3_600
MOST_REACH_S: Final = 1_830 * DAY


def _reach(least: int, most: int) -> Parsed:
    return duration_type(least * 1_000, most * 1_000, step_ms=1_000)


class GraphSettings(BaseModel):
    """How far back the graphs reach. On disk each virtual service and real server takes 61 kB, 1.3 MB at the most."""

    model_config = SETTINGS

    keep_10s: Annotated[int, _reach(600, DAY)] = Field(
        default=written("65m"), description="Values of 10 seconds, 10m to 1d."
    )
    keep_1m: Annotated[int, _reach(HOUR, 7 * DAY)] = Field(
        default=written("390m"), description="Values of a minute, 1h to 7d."
    )
    keep_5m: Annotated[int, _reach(6 * HOUR, 31 * DAY)] = Field(
        default=written("25h"), description="Values of 5 minutes, 6h to 31d."
    )
    keep_30m: Annotated[int, _reach(DAY, 180 * DAY)] = Field(
        default=written("180h"), description="Values of half an hour, 1d to 180d."
    )
    keep_2h: Annotated[int, _reach(7 * DAY, 730 * DAY)] = Field(
        default=written("32d"), description="Values of two hours, 7d to 730d."
    )
    keep_1d: Annotated[int, _reach(7 * DAY, MOST_REACH_S)] = Field(
        default=written("372d"), description="Values of a day, 7d to 1830d."
    )

    @property
    def levels(self) -> Levels:
        """As the files have them: whole rows, at least the time that was asked for."""
        reaches = (self.keep_10s, self.keep_1m, self.keep_5m, self.keep_30m, self.keep_2h, self.keep_1d)
        return tuple(
            Level(level.step, -(-reach // (level.step * 1_000))) for level, reach in zip(LEVELS, reaches, strict=True)
        )
