"""Sends an alert message by e-mail, webhook and the local syslog.  Blocking: called in a thread."""

from __future__ import annotations

import http.client
import json
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lbfast.control.alert_groups import AlertMessage
from lbfast.control.alert_syslog import send_syslog
from lbfast.control.log_targets import DEV_LOG, FACILITY_DAEMON, IDENTIFIER
from lbfast.model.upkeep import AlertSettings, MailSettings

TIMEOUT_S: Final = 15.0
_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_WARNING: Final = 4

Way = Callable[[AlertMessage], None]


def ways_of(settings: AlertSettings, host: str) -> dict[str, Way]:
    """The configured ways by name; each raises OSError or ValueError when the message could not be handed over."""
    ways: dict[str, Way] = {}
    if (mail := settings.email) is not None:
        ways["email"] = lambda message: send_mail(mail, message, host)
    if (url := settings.webhook) is not None:
        ways["webhook"] = lambda message: post(url, message, host)
    if settings.syslog:
        ways["syslog"] = lambda message: write_syslog(message)
    if (server := settings.syslog_server) is not None:
        ways["syslog server"] = lambda message: send_syslog(server, message, host)
    return ways


def send_mail(mail: MailSettings, message: AlertMessage, host: str) -> None:
    port = mail.port or _PORTS[mail.tls]
    context = ssl.create_default_context(cafile=mail.ca_file)
    try:
        if mail.tls == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, port, timeout=TIMEOUT_S, context=context)
        else:
            client = smtplib.SMTP(mail.host, port, timeout=TIMEOUT_S)
        with client:
            if mail.tls == "starttls":
                client.starttls(context=context)
            if mail.user is not None:
                password = Path(mail.password_file).read_text().rstrip("\n") if mail.password_file else ""
                client.login(mail.user, password)
            client.send_message(make_mail(mail, message, host))
    except smtplib.SMTPException as error:
        raise OSError(f"the mail server refused: {error}") from error


def make_mail(mail: MailSettings, message: AlertMessage, host: str) -> EmailMessage:
    """Labels may hold whatever people write: nothing of them can become a header."""
    letter = EmailMessage()
    letter["From"] = mail.sender
    letter["To"] = ", ".join(mail.recipients)
    letter["Subject"] = " ".join(f"[lbfast {host}] {message.subject}".split())[:200]
    letter["Date"] = formatdate(localtime=True)
    letter["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2])
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content("\n".join([*message.lines(), "", f"lbfast on {host}"]) + "\n")
    return letter


def post(url: str, message: AlertMessage, host: str) -> None:
    """One JSON document; redirects are not followed, any 2xx is success."""
    parts = urlsplit(url)
    place = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            place, parts.port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(place, parts.port, timeout=TIMEOUT_S)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with closing(connection):
        try:
            connection.request("POST", target, as_json(message, host), {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(f"{place}: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise OSError(f"{place} answered {status}")


def as_json(message: AlertMessage, host: str) -> bytes:
    """``text`` is what chat services show."""
    text = "\n".join(message.lines())
    document = {
        "host": host,
        "incident": message.incident,
        "subject": message.subject,
        "text": text,
        "alerts": [asdict(alert) for alert in message.alerts],
        "left_out": message.left_out,
        "held_back": message.held_back,
    }
    return json.dumps(document).encode()


def write_syslog(message: AlertMessage, path: str = DEV_LOG) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(path)
        for line in message.lines():
            text = "".join(char if char.isprintable() else " " for char in line)
            sock.send(f"<{FACILITY_DAEMON * 8 + _WARNING}>{IDENTIFIER}: ALERT {text}".encode()[:8_000])
