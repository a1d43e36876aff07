"""Alerts: grouped by incident, limited in number, none lost; found once, told once; and sent for real."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from harness import free_port
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfast.control.alert_groups import Alert, AlertGroups, AlertMessage
from lbfast.control.alert_syslog import make_record, send_syslog
from lbfast.control.alert_watch import AlertWatch, RealFact, ServiceFact
from lbfast.control.alert_ways import make_mail, post, send_mail, ways_of, write_syslog
from lbfast.control.own_certificate import OWN, UPLOADED, OwnCertificate
from lbfast.model.appliance import WebSettings
from lbfast.model.upkeep import AlertSettings, MailSettings, SyslogServer

AT = "2026-03-01T08:00:00+00:00"
DAY = 86_400.0


def alert(incident: str = "Symphony", text: str = "down") -> Alert:
    return Alert("server_down", incident, text, AT)


def test_what_happens_together_is_one_message() -> None:
    groups = AlertGroups(10, 300, 30)
    for number in range(3):
        groups.offer(alert(text=f"server {number} is down"), number)
    assert groups.due(9.9) == []
    (message,) = groups.due(10)
    assert len(message.alerts) == 3
    assert message.subject == "server 0 is down (and 2 more)"
    groups.offer(alert(text="up again"), 20)
    assert groups.due(309) == []
    assert groups.due(310)[0].alerts[0].text == "up again"
    assert groups.due(610) == [] and groups.next_at() is None


def test_the_limit_holds_back_and_says_so() -> None:
    groups = AlertGroups(0, 60, 2)
    for incident in "abcd":
        groups.offer(alert(incident), 0)
    assert len(groups.due(0)) == 2
    assert groups.due(100) == []
    late = groups.due(3_601)
    assert [message.incident for message in late] == ["c", "d"]
    assert late[0].held_back == 1, "the other one that waited"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 400), st.sampled_from("abc")), max_size=80), st.integers(1, 5))
def test_no_alert_is_lost_and_no_hour_has_too_many(events: list[tuple[float, str]], most: int) -> None:
    groups, now, sent, offered = AlertGroups(5, 60, most), 0.0, [], 0
    for pause, incident in events:
        now += pause
        groups.offer(alert(incident), now)
        offered += 1
        sent += [(now, message) for message in groups.due(now)]
    while groups.next_at() is not None:
        now += 100
        sent += [(now, message) for message in groups.due(now)]
    assert sum(len(message.alerts) + message.left_out for _, message in sent) == offered
    for start, _ in sent:
        assert sum(1 for at, _ in sent if start <= at < start + 3_600) <= most


def fact(state: str = "up", up: bool | None = True, ends: float | None = None, fullness: float | None = None) -> Any:
    return [ServiceFact("S", state, (RealFact("R", up, "refused", ends),), fullness)]


def kinds(watch: AlertWatch, facts: Any) -> list[str]:
    return [found.kind for found in watch.look(facts, AT)]


def test_changes_are_told_once_and_wishes_of_operators_never() -> None:
    watch = AlertWatch(30, 90)
    assert kinds(watch, fact()) == []
    assert kinds(watch, fact("down", False)) == ["service_down", "server_down"]
    assert kinds(watch, fact("down", False)) == []
    assert kinds(watch, fact("drained", None)) == []
    assert kinds(watch, fact("up", True)) == ["service_up", "server_up"]
    assert kinds(watch, []) == []


def test_a_server_that_is_down_at_the_first_look_is_told() -> None:
    assert kinds(AlertWatch(30, 90), fact("down", False)) == ["service_down", "server_down"]


def test_a_certificate_is_told_at_each_step_and_a_table_once_until_it_has_emptied() -> None:
    watch = AlertWatch(30, 90)
    told = [kinds(watch, fact(ends=days * DAY)) for days in (60, 29, 20, 13, 13, 6, 2, 0.5, -1, -2, 90, 10)]
    assert [len(each) for each in told] == [0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1]
    told = [kinds(watch, fact(fullness=percent)) for percent in (50, 91, 95, 88, 91, 80, 92)]
    assert [len(each) for each in told] == [0, 1, 0, 0, 0, 0, 1]


def test_the_certificate_of_the_web_interface_is_told_at_each_step_too() -> None:
    watch = AlertWatch(30, 90)
    found = [watch.look(fact(), AT, days * DAY) for days in (60, 29, 28, 6, -1, 400)]
    assert [[it.text.removeprefix("the certificate of the web interface ") for it in each] for each in found] == [
        *([], ["ends in 29 days"], [], ["ends in 6 days"], ["has ended"], [])
    ]
    assert found[1][0].service is None
    assert watch.look(fact(), AT) == [], "not looked at this time"


def test_the_certificate_that_is_in_use_is_the_one_that_is_looked_at(ca: trustme.CA, tmp_path: Path) -> None:
    def pem(place: Path, year: int) -> str:
        made = ca.issue_cert("lb.example", not_after=datetime(year, 1, 1, tzinfo=UTC))
        made.private_key_and_cert_chain_pem.write_to_path(str(place))
        return str(place)

    (tmp_path / "web").mkdir()
    own = OwnCertificate(WebSettings(), tmp_path)
    year = lambda: datetime.fromtimestamp(own.ends_at() or 0, UTC).year  # noqa: E731
    assert own.ends_at() is None, "none yet"
    pem(tmp_path / "web" / OWN, 2071)
    assert year() == 2071
    pem(tmp_path / "web" / UPLOADED, 2072)
    assert year() == 2072
    own.replace(WebSettings(certificate=pem(tmp_path / "named.pem", 2073)))
    assert year() == 2073
    (tmp_path / "named.pem").write_text("no certificate")
    assert own.ends_at() is None
    for none in (None, WebSettings(tls=False)):
        own.replace(none)
        assert own.ends_at() is None


# --- sent for real --------------------------------------------------------------------------------

MESSAGE = AlertMessage("S", (alert(text="Röntgen\nBcc: everybody@example.org is down"), alert(text="x")))


class Inbox:
    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append(envelope)
        return "250 OK"


def mail(port: int, **more: Any) -> MailSettings:
    given_ = {
        "host": "localhost",
        "port": port,
        "sender": "a@example.org",
        "recipients": ["b@example.org", "c@example.org"],
    }
    return MailSettings.model_validate(given_ | more)


@pytest.fixture
def certificate(ca: trustme.CA, tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    authority = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(authority))
    return context, str(authority)


@pytest.mark.parametrize("tls", ["starttls", "tls", "none"])
def test_mail_by_every_kind_of_tls(tls: str, certificate: tuple[ssl.SSLContext, str], tmp_path: Path) -> None:
    context, authority = certificate
    inbox, login = Inbox(), tmp_path / "password"
    login.write_text("secret\n")

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.login == b"lbfast" and data.password == b"secret")

    options: dict[str, Any] = {"authenticator": authenticate, "auth_required": tls != "none"}
    if tls == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    elif tls == "tls":
        options |= {"ssl_context": context, "auth_require_tls": False}
    controller = Controller(inbox, hostname="localhost", port=free_port(), **options)
    controller.start()
    try:
        port = controller.port
        more = {} if tls == "none" else {"user": "lbfast", "password_file": str(login)}
        send_mail(mail(port, tls=tls, ca_file=authority, **more), MESSAGE, "lb1")
        if tls != "none":
            with pytest.raises(OSError):
                send_mail(mail(port, tls=tls, **more), MESSAGE, "lb1")  # an authority that nobody trusts
    finally:
        controller.stop()
    (letter,) = inbox.letters
    assert letter.rcpt_tos == ["b@example.org", "c@example.org"]


def test_a_label_never_becomes_a_header() -> None:
    letter = make_mail(mail(25), MESSAGE, "lb1")
    assert letter["Bcc"] is None
    assert "\n" not in str(letter["Subject"])
    assert "Röntgen" in letter.get_content()


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any], list[int]]]:
    bodies: list[Any] = []
    statuses = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(statuses[0])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?room=1", bodies, statuses
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_gets_the_message_and_a_refusal_is_an_error(hook: tuple[str, list[Any], list[int]]) -> None:
    url, bodies, statuses = hook
    ways_of(AlertSettings.model_validate({"webhook": url}), "lb1")["webhook"](MESSAGE)
    assert bodies[0]["incident"] == "S"
    assert [it["kind"] for it in bodies[0]["alerts"]] == ["server_down"] * 2
    statuses[0] = 500
    with pytest.raises(OSError, match="500"):
        post(url, MESSAGE, "lb1")
    statuses[0] = 302
    with pytest.raises(OSError, match="302"):
        post(url, MESSAGE, "lb1")


def test_a_syslog_daemon_gets_a_line_for_each_alert_and_nothing_that_makes_another(tmp_path: Path) -> None:
    place = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(place))
        daemon.settimeout(20)
        write_syslog(MESSAGE, str(place))
        first, second = daemon.recv(10_000).decode(), daemon.recv(10_000).decode()
    assert first.startswith("<28>lbfast: ALERT "), "daemon, warning"
    assert first.endswith("Röntgen Bcc: everybody@example.org is down")
    assert second.endswith("x")
    with pytest.raises(OSError, match="refused"):
        write_syslog(MESSAGE, str(place))


# --- a syslog server --------------------------------------------------------------------------------


def syslog(port: int, **more: Any) -> SyslogServer:
    return SyslogServer.model_validate({"host": "localhost", "port": port, **more})


RECORD = re.compile(rb"<(\d+)>1 (\S+) (\S+) lbfast \d+ (\S+) - \xef\xbb\xbf(.*)", re.DOTALL)


def records_of(data: bytes) -> list[tuple[bytes, ...]]:
    """What a receiver makes of a stream: each record after its length."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        record = RECORD.fullmatch(rest[: int(length)])
        assert record, data[:200]
        found.append(record.groups())
        data = rest[int(length) :]
    return found


class Receiver:
    """Takes one connection, over TLS with a context, and all that it brings."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(30)
        self.port = self._door.getsockname()[1]
        self._context = context
        self.data = b""
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        connection, _ = self._door.accept()
        connection.settimeout(30)
        try:
            with self._context.wrap_socket(connection, server_side=True) if self._context else connection as stream:
                while piece := stream.recv(4_096):
                    self.data += piece
        except OSError:
            pass  # a client that does not trust us

    def end(self) -> bytes:
        self._thread.join()
        self._door.close()
        return self.data


def test_a_syslog_server_gets_a_record_for_each_alert_by_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        ways = ways_of(
            AlertSettings.model_validate(
                {"syslog_server": {"host": "127.0.0.1", "port": server.getsockname()[1]}, "group_wait": "0s"}
            ),
            "lb 1",
        )
        ways["syslog server"](MESSAGE)
        first, second = (RECORD.fullmatch(server.recv(10_000)) for _ in range(2))
    assert first and second
    assert first[1] == b"28", "daemon, warning"
    assert first[2] == AT.encode()
    assert first[3] == b"lb1", "a host name of a record has no spaces"
    assert first[4] == b"server_down"
    assert first[5].decode().endswith("Röntgen Bcc: everybody@example.org is down")


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_a_syslog_server_gets_records_after_their_length_in_a_stream(
    protocol: str, certificate: tuple[ssl.SSLContext, str]
) -> None:
    context, authority = certificate
    receiver = Receiver(context if protocol == "tls" else None)
    more = {"ca_file": authority} if protocol == "tls" else {}
    held = AlertMessage("S", MESSAGE.alerts, left_out=3, held_back=1)
    send_syslog(syslog(receiver.port, protocol=protocol, **more), held, "lb1")
    records = records_of(receiver.end())
    assert [kind for _, _, _, kind, _ in records] == [b"server_down"] * 4
    assert records[2][4] == b"and 3 more"
    assert b"held back" in records[3][4]


def test_a_syslog_server_that_is_not_there_or_not_trusted_is_an_error(
    certificate: tuple[ssl.SSLContext, str],
) -> None:
    for protocol in ("udp", "tcp"):
        with pytest.raises(OSError, match="nobody listens there"):
            send_syslog(syslog(free_port(), protocol=protocol), MESSAGE, "lb1")
    receiver = Receiver(certificate[0])
    with pytest.raises(OSError, match="certificate"):
        send_syslog(syslog(receiver.port, protocol="tls"), MESSAGE, "lb1")
    assert receiver.end() == b""


@given(st.text(max_size=3_000), st.text(max_size=300))
def test_a_record_is_one_record_whatever_is_written_in_it(text: str, host: str) -> None:
    record = make_record("server_down", AT, text, host, 2_048)
    assert len(record) <= 2_048
    assert RECORD.fullmatch(record)
    assert not set(record.partition(b"\xef\xbb\xbf")[2]) & set(range(32))
    record.decode()


@pytest.mark.parametrize(
    ("host", "kept"),
    [("logs.trust.nhs.uk", "logs.trust.nhs.uk"), ("10.0.0.1", "10.0.0.1"), ("2001:DB8::0:1", "2001:db8::1")],
)
def test_a_syslog_server_is_named_or_addressed(host: str, kept: str) -> None:
    server = SyslogServer(host=host, protocol="tls")
    assert (server.host, server.port_number) == (kept, 6514)


@pytest.mark.parametrize("host", ["", "a b", "10.0.0.256", "logs:514", "-x", 3])
def test_what_is_no_server_is_refused(host: Any) -> None:
    with pytest.raises(ValueError, match="a host name or an IP address"):
        SyslogServer(host=host)
