"""Alerts: grouped by incident, limited in number, none lost; found once, told once; and sent for real."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
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
from lbfast.control.alert_watch import AlertWatch, RealFact, ServiceFact
from lbfast.control.alert_ways import make_mail, post, send_mail, ways_of, write_syslog
from lbfast.model.upkeep import AlertSettings, MailSettings

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
