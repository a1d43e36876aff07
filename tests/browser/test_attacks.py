"""Attacks on the web interface by plain HTTPS: each is refused, and nothing of it has an effect."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator

import pytest
from harness import free_port, real_server, virtual_service
from waiting import scaled, wait_for
from web_world import PASSWORD, Client, Web, web_lbfast

DRAIN = {"do": "drain", "service": "Symphony", "real": "one"}


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_lbfast([virtual_service(free_port(), [real_server("one", 9, "127.0.0.77")])]) as web:
        yield web


@pytest.fixture
def client(web: Web) -> Client:
    """Logged in as one who may do everything."""
    client = web.client()
    assert client.login().status == 303
    return client


def is_online(web: Web) -> bool:
    report = web.lb.call("overview")["virtual_services"][0]["real_servers"][0]
    return bool(report["admin"] == "online")


# --- requests that others have sent ---------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_forged_by_another_site(web: Web, client: Client, headers: dict[str, str]) -> None:
    form = {"csrf": client.csrf(), **DRAIN}
    assert client.post("/lbadmin/overview/change", form, **headers).status == 403
    assert is_online(web)


@pytest.mark.parametrize("token", ["", "x", "0" * 32])
def test_forged_without_the_token(web: Web, client: Client, token: str) -> None:
    assert client.post("/lbadmin/overview/change", {"csrf": token, **DRAIN}).status == 403
    assert is_online(web)


def test_token_of_another_session(web: Web, client: Client) -> None:
    other = web.client()
    other.login()
    assert client.post("/lbadmin/overview/change", {"csrf": other.csrf(), **DRAIN}).status == 403
    assert is_online(web)


def test_reading_never_changes(web: Web, client: Client) -> None:
    assert client.get("/lbadmin/overview/change?do=drain&service=Symphony&real=one").status == 200
    assert is_online(web)


def test_login_from_another_site(web: Web) -> None:
    answer = web.client().post(
        "/lbadmin/login", {"user": "loadbalancer", "password": PASSWORD}, Origin="https://evil.example"
    )
    assert (answer.status, answer.cookie) == (403, "")


# --- sessions -------------------------------------------------------------------------------------


def test_a_planted_cookie_is_not_taken_over(web: Web) -> None:
    client = web.client()
    client.cookie = "__Host-lbfast=" + "A" * 43
    client.login()
    assert client.cookie != "__Host-lbfast=" + "A" * 43
    planted = web.client()
    planted.cookie = "__Host-lbfast=" + "A" * 43
    assert planted.get("/lbadmin/").status == 303


def test_login_ends_the_session_before(web: Web, client: Client) -> None:
    before = web.client()
    before.cookie = client.cookie
    client.login()
    assert before.get("/lbadmin/").status == 303


@pytest.mark.parametrize("cookie", ["", "x", "A" * 5000, "' OR 1=1 --", "\u0000", "../../etc/passwd"])
def test_forged_cookies(web: Web, cookie: str) -> None:
    client = web.client()
    client.cookie = "__Host-lbfast=" + cookie.encode("utf-8").decode("latin-1")
    assert client.get("/lbadmin/maintenance/passwords").status in (303, 400)


def test_logout_and_password_change_end_sessions(web: Web, client: Client) -> None:
    stolen = web.client()
    stolen.cookie = client.cookie
    assert stolen.get("/lbadmin/").status == 200
    assert client.post("/lbadmin/logout", {"csrf": client.csrf()}).status == 303
    assert stolen.get("/lbadmin/").status == 303
    client.login()
    web.set_password("loadbalancer", PASSWORD)
    assert client.get("/lbadmin/").status == 303


def test_the_cookie_is_out_of_reach(web: Web) -> None:
    answer = web.client().post("/lbadmin/login", {"user": "loadbalancer", "password": PASSWORD})
    words = {word.strip().lower() for word in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= words


def test_nothing_without_login(web: Web) -> None:
    for path in ("", "commit", "logs/audit", "maintenance/backup", "cluster/services/new", "overview/rows", "view"):
        answer = web.client().get(f"/lbadmin/{path}")
        assert (answer.status, "Symphony" in answer.text) == (303, False), path
    assert web.client().ask("GET", "/lbadmin/overview/live", headers={"Accept": "text/event-stream"}).status == 401


# --- guessing -------------------------------------------------------------------------------------


def test_brute_force_is_slowed_and_the_console_is_not(web: Web) -> None:
    guesser = web.client("127.0.0.66")
    answers: list[int] = []
    while 429 not in answers:  # how long it is shut out grows with each failure: the machine may be slower at first
        answers.append(guesser.login(password=f"wrong password {len(answers)}").status)
    assert answers[:5] == [401] * 5
    assert set(answers) == {401, 429}
    wait_for(lambda: guesser.login(password="wrong").status == 401, 60, "the end of it")
    assert guesser.login().status == 429, "not even the right one, for a while"
    assert web.client("127.0.0.67").login().status == 303, "another place is not shut out"
    web.set_password("loadbalancer", PASSWORD)  # the console always works
    audit = web.lb.directory / "state/web/audit.jsonl"
    assert sum(json.loads(line)["what"] == "login failed" for line in audit.read_text().splitlines()) >= 5


def test_an_unknown_user_looks_like_a_known_one(web: Web) -> None:
    known = web.client("127.0.0.68").login(password="wrong password 1")
    unknown = web.client("127.0.0.69").login("nobody", "wrong password 1")
    assert (known.status, known.text.count("wrong")) == (unknown.status, unknown.text.count("wrong"))


def test_setup_is_over(web: Web) -> None:
    answer = web.client().post(
        "/lbadmin/setup", {"code": "aaaaa-aaaaa-aaaaa-aaaaa", "password": "x" * 12, "again": "x" * 12}
    )
    assert (answer.status, answer.location) == (303, "/lbadmin/login")


def test_setup_with_a_wrong_code() -> None:
    with web_lbfast(with_password=False) as web:
        form = {"code": "aaaaa-aaaaa-aaaaa-aaaaa", "password": PASSWORD, "again": PASSWORD}
        assert web.client().post("/lbadmin/setup", form).status == 400
        form["code"] = web.setup_code
        answer = web.client().post("/lbadmin/setup", form)
        assert (answer.status, bool(answer.cookie)) == (303, True)
        assert web.client().post("/lbadmin/setup", form).location == "/lbadmin/login", "it works once"


# --- paths, headers, bodies -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/lbadmin/static/../app.py",
        "/lbadmin/static/..%2f..%2fapp.py",
        "/lbadmin/static/%2e%2e/%2e%2e/web.db",
        "/lbadmin/static//etc/passwd",
        "/lbadmin/static/lbfast.css%00.html",
        "/lbadmin/maintenance/backup/file?name=../../web/web.db",
        "/lbadmin/support/file?name=..%2f..%2fids.json",
        "//evil.example/lbadmin/",
    ],
)
def test_traversal(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status in (303, 400, 404)
    assert "SQLite" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example/", "/lbadmin/\\evil.example", "javascript:x"]
)
def test_login_leads_only_home(web: Web, place: str) -> None:
    assert web.client().login(next=place).location == "/lbadmin/"


def test_security_headers_everywhere(web: Web, client: Client) -> None:
    for answer in (
        client.get("/lbadmin/"),
        web.client().get("/nothing"),
        web.client().get("/lbadmin/static/lbfast.js"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert answer.headers["x-frame-options"] == "DENY"
    assert client.get("/lbadmin/").headers["cache-control"] == "no-store"


def test_no_inline_code_or_style_on_pages(client: Client) -> None:
    for path in ("", "cluster/services/new", "logs/events", "reports/graphs", "account"):
        text = client.get(f"/lbadmin/{path}").text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick" not in text
        assert "<script>" not in text


@pytest.mark.parametrize("length", ["3000000", "99999999999999", "-1", "abc"])
def test_oversized_bodies_are_refused_before_they_come(web: Web, length: str) -> None:
    answer = web.client().ask("POST", "/lbadmin/login", headers={"Content-Length": length})
    assert answer.status in (400, 413)


def test_an_endless_body_is_cut(web: Web) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"a" * 65_536

    client = web.client()
    try:
        answer = client.ask("POST", "/lbadmin/login", chunks(), {"Transfer-Encoding": "chunked"})
    except (ConnectionError, ssl.SSLError):
        return  # the server did not listen to the end
    assert answer.status in (400, 413)


def test_a_head_that_never_ends_is_let_go(web: Web) -> None:
    """Half a request and then silence: the connection is closed, and others are served meanwhile."""
    raw = socket.create_connection(("127.0.0.1", web.port), scaled(30))
    with ssl._create_unverified_context().wrap_socket(raw) as sock:
        sock.sendall(b"GET /lbadmin/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert web.client().get("/lbadmin/login").status == 200
        sock.settimeout(scaled(25))
        try:
            assert sock.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            pass


def test_an_enormous_head_is_refused(web: Web) -> None:
    try:
        assert web.client().get("/lbadmin/login", X_Large="a" * 300_000).status in (400, 431)
    except (ConnectionError, ssl.SSLError):
        pass  # it answered and closed before all of it was sent
    assert web.client().get("/lbadmin/login").status == 200


def test_many_fields_and_files_are_refused(client: Client) -> None:
    form = {f"field{number}": "x" for number in range(1500)}
    answer = client.post("/lbadmin/overview/change", {"csrf": client.csrf(), **form})
    assert answer.status in (400, 403)


def test_a_certificate_that_does_not_fit_is_refused(web: Web, client: Client) -> None:
    mark = "frontier"
    parts = [("csrf", "", client.csrf()), ("do", "", "upload"), ("certificate", '; filename="c.pem"', "no certificate")]
    body = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, more, value in parts
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    answer = client.ask("POST", "/lbadmin/local/certificate", f"{body}--{mark}--\r\n", headers)
    assert answer.status == 422
    assert "no PEM file" in answer.text
    assert web.client().get("/lbadmin/login").status == 200


def test_the_audit_log_has_what_was_done_and_shows_tampering(web: Web, client: Client) -> None:
    client.post("/lbadmin/overview/change", {"csrf": client.csrf(), **DRAIN, "reason": "look at me"})
    wait_for(lambda: not is_online(web), 5, "the drain")
    web.lb.call("online", service="Symphony", real="one")
    page = client.get("/lbadmin/logs/audit").text
    assert "look at me" in page
    assert "is whole" in page
    path = web.lb.directory / "state/web/audit.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace("look at me", "look at you"))
    assert "was changed" in client.get("/lbadmin/logs/audit").text
    path.write_text(whole)


def test_an_api_key_needs_no_cookie_and_no_token_but_a_role(web: Web) -> None:
    code, out, _ = web.lb.cli("apikey", "create", "--role", "report", "--json")
    assert code == 0
    made = json.loads(out)
    client = web.client()
    assert client.get("/lbadmin/overview/rows", Authorization=f"Bearer {made['key']}").status == 200
    answer = client.post("/lbadmin/overview/change", DRAIN, Authorization=f"Bearer {made['key']}")
    assert answer.status == 403
    assert web.lb.cli("apikey", "revoke", made["id"])[0] == 0
    assert client.get("/lbadmin/overview/rows", Authorization=f"Bearer {made['key']}").status == 303
    assert is_online(web)
