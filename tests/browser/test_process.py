"""The web process: what it is, what it has, and how it moves to another port, address or certificate."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from harness import Lbfast, free_port, real_server, virtual_service
from live_world import Load, named_servers
from waiting import fd_census, scaled, wait_for
from web_world import HOME, PASSWORD, Web, web_lbfast


@pytest.fixture(scope="module")
def bare() -> Iterator[Web]:
    """An appliance without a service, for tests that leave it as it was; ``port`` says where it is by then."""
    with web_lbfast() as web:
        yield web


@pytest.fixture(scope="module")
def serving() -> Iterator[Web]:
    """One with a virtual service."""
    with web_lbfast([virtual_service(free_port(), [real_server("one", 9, "127.0.0.77")])]) as web:
        yield web


def fingerprint(port: int) -> bytes:
    context = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as sock:
        return sock.getpeercert(True) or b""


def answers(web: Web, port: int) -> bool:
    client = web.client()
    client.port = port
    try:
        return client.get("/lbadmin/login").status in (200, 303)
    except (OSError, ssl.SSLError):
        return False


def test_it_is_nobody_and_holds_nothing_of_the_workers(serving: Web) -> None:
    web = serving
    pid = web.lb.child("web")
    wait_for(lambda: answers(web, web.port), 20, "the web interface: rights are given up before it answers")
    assert "memfd:" not in Path(f"/proc/{pid}/maps").read_text(), "shared memory is none of its business"
    listening = [name for name in fd_census(pid).values() if name.startswith("socket")]
    assert len(listening) <= 6, listening  # its own door, the channel, the event loop's
    if os.geteuid() == 0:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] != "0"
        assert int(fields["CapEff"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


def test_an_appliance_without_services_runs_and_has_a_certificate_of_its_names() -> None:
    with web_lbfast(with_password=False) as web:
        assert "listeners 0" in web.lb.ready_line
        found = ssl.DER_cert_to_PEM_cert(fingerprint(web.port))
        from cryptography import x509

        names = x509.load_pem_x509_certificate(found.encode()).extensions
        text = str(names.get_extension_for_class(x509.SubjectAlternativeName).value)
        assert "localhost" in text
        assert "127.0.0.1" in text
        assert web.client().get(HOME).location == "/lbadmin/setup"
        first = fingerprint(web.port)
        web.lb.call("restart", process="web")
        wait_for(lambda: answers(web, web.port), 10, "its successor")
        assert fingerprint(web.port) == first, "the certificate is kept"


def test_a_taken_port_is_told_and_nothing_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lb = Lbfast(f'[web]\naddress = "127.0.0.1"\nport = {port}\n')
        try:
            lb.start()
            assert lb.wait() == 2
            assert f"web . port: found 127.0.0.1:{port}: address already in use by process" in lb.stderr
        finally:
            lb.clean_up()


def test_a_move_that_locks_out_goes_back_by_itself(bare: Web) -> None:
    """The new place is not confirmed in time: the old one is there again, with the session."""
    web = bare
    client = web.client()
    client.login()
    new = free_port()
    settings = {"web": {"port": new}}
    web.lb.call("candidate_edit", operations=[{"op": "change_global", "settings": settings}])
    web.lb.call("candidate_commit", confirm=10)
    wait_for(lambda: answers(web, new), 10, "the new place")
    wait_for(lambda: answers(web, web.port), 40, "the old place again")
    wait_for(lambda: not answers(web, new), 10, "the new place to be given up")
    assert client.get(HOME).status == 200


def test_a_move_in_the_browser_is_kept_there(bare: Web) -> None:
    web = bare
    client = web.client()
    client.login()
    new = free_port()
    form = {"csrf": client.csrf(), "address": "127.0.0.1", "port": str(new), "tls": "yes"}
    answer = client.post("/lbadmin/local/sockets", form)
    assert (answer.status, f"https://127.0.0.1:{new}/lbadmin/" in answer.text) == (200, True)
    wait_for(lambda: answers(web, new), 10, "the new place")
    client.port = web.port = new
    assert client.post("/lbadmin/commit", {"csrf": client.csrf(), "do": "confirm"}).status == 303
    assert web.lb.call("history")["unconfirmed"] is None


def test_plain_http_takes_the_place_of_https_and_goes_back(serving: Web) -> None:
    """By the page: the browser is let out of strict transport, the session of one is none of the other."""
    web = serving
    client = web.client()
    client.login()
    new = free_port()
    before = client.get(HOME)
    assert before.headers["strict-transport-security"] == "max-age=31536000"
    answer = client.post("/lbadmin/local/sockets", {"csrf": client.csrf(), "address": "127.0.0.1", "port": str(new)})
    assert (answer.status, f"http://127.0.0.1:{new}/lbadmin/" in answer.text) == (200, True)
    assert answer.headers["strict-transport-security"] == "max-age=0"

    def asked(cookie: str = "", body: str | None = None, place: str = HOME) -> tuple[int, str]:
        """In the clear; 0 while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", new, timeout=scaled(20))
        try:
            headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
            connection.request("GET" if body is None else "POST", place, body, headers)
            response = connection.getresponse()
            assert response.getheader("strict-transport-security") is None
            return response.status, response.getheader("set-cookie") or ""
        except OSError:
            return 0, ""
        finally:
            connection.close()

    wait_for(lambda: asked()[0], 20, "the new place")
    assert asked(client.cookie)[0] == 303, "to the login: the session was one of HTTPS"
    assert not answers(web, web.port), "not beside HTTPS"
    form = f"user=loadbalancer&password={PASSWORD.replace(' ', '+')}"
    status, cookie = asked(body=form, place="/lbadmin/login")
    assert (status, cookie.startswith("lbfast="), "secure" in cookie.lower()) == (303, True, False)
    assert asked(cookie.partition(";")[0])[0] == 200
    web.lb.call("revert")
    wait_for(lambda: answers(web, web.port), 20, "HTTPS again")
    assert client.get(HOME).status == 200
    assert asked()[0] == 0


def test_a_move_to_a_taken_port_is_refused(bare: Web) -> None:
    web = bare
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        client = web.client()
        client.login()
        port = taken.getsockname()[1]
        form = {"csrf": client.csrf(), "address": "127.0.0.1", "port": str(port), "tls": "yes"}
        answer = client.post("/lbadmin/local/sockets", form)
        assert (answer.status, "already in use" in answer.text) == (422, True)
        assert not web.lb.call("candidate")["is_changed"], "and nothing is left to be committed"
        assert client.get(HOME).status == 200


def test_it_is_switched_off_and_on_by_a_commit(serving: Web) -> None:
    web = serving
    text = web.lb.call("candidate")["text"]
    off = text.replace(f'[web]\naddress = "127.0.0.1"\nport = {web.port}\n', "")
    web.lb.call("commit", text=off, file="off")
    wait_for(lambda: "lbfast-web" not in web.lb.children(), 10, "its end")
    assert not answers(web, web.port)
    web.lb.call("commit", text=text, file="on")
    wait_for(lambda: answers(web, web.port), 10, "it to be there again")


def test_an_uploaded_certificate_is_used_at_once_and_can_be_taken_back(bare: Web, ca: trustme.CA) -> None:
    web = bare
    client, before = web.client(), fingerprint(web.port)
    client.login()
    made = ca.issue_cert("lbfast.example", not_after=datetime(2099, 1, 1, tzinfo=UTC))
    pem = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()
    mark = "frontier"
    parts = [("csrf", "", client.csrf()), ("do", "", "upload"), ("certificate", '; filename="c.pem"', pem.decode())]
    body = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, more, value in parts
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    answer = client.ask("POST", "/lbadmin/local/certificate", f"{body}--{mark}--\r\n", headers)
    assert answer.status == 303, answer.text
    assert fingerprint(web.port) == ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())
    assert client.post("/lbadmin/local/certificate", {"csrf": client.csrf(), "do": "remove"}).status == 303
    assert fingerprint(web.port) == before


def test_readers_of_the_live_log_that_go_away_are_noticed() -> None:
    """In the middle of a burst: the web process neither writes on into nothing nor complains of it."""
    port = free_port()
    with named_servers(("one",)) as servers:
        service = virtual_service(port, [real_server("one", servers["one"].port)])
        with web_lbfast([service]) as web, Load(port) as load:
            client = web.client()
            client.login()
            pid = web.lb.child("web")
            before = len(fd_census(pid))
            for _ in range(8):
                read_some(web.port, client.cookie)
            seen = load.visits
            wait_for(lambda: load.visits > seen + 50, 20, "more events")
            wait_for(lambda: len(fd_census(pid)) <= before + 1, 20, "their connections to be closed")
            assert client.get("/lbadmin/account").status == 200
            assert web.lb.stderr == ""


def read_some(port: int, cookie: str) -> None:
    """Some of the live log, then away without a word."""
    context = ssl._create_unverified_context()
    raw = socket.create_connection(("127.0.0.1", port), 10)
    with context.wrap_socket(raw) as sock:
        head = f"GET /lbadmin/logs/events/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n"
        sock.sendall(head.encode())
        got = 0
        while got < 20_000:
            got += len(sock.recv(65_536))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_passwd_and_keys_work_while_nothing_runs(tmp_path: Path) -> None:
    lb = Lbfast('[web]\naddress = "127.0.0.1"\n', directory=tmp_path)
    file = tmp_path / "password"
    try:
        file.write_text("short")
        assert lb.cli("passwd", "--password-file", str(file))[0] == 2
        file.write_text(PASSWORD)
        assert lb.cli("passwd", "--password-file", str(file))[0] == 0
        code, _, err = lb.cli("passwd", "bob", "--password-file", str(file))
        assert (code, "there are loadbalancer" in err) == (1, True)
        assert lb.cli("apikey", "create", "--role", "root")[0] == 2
        assert lb.cli("apikey", "create", "--role", "report", "--expires", "5y")[0] == 2
        assert lb.cli("apikey", "list")[1] == "no keys\n"
    finally:
        lb._stderr.close()
