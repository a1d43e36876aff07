"""What looks after the appliance, on its pages: alerts and their test, scheduled backups and their faults."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import free_port, real_server, virtual_service
from test_upgrade import Installed
from waiting import wait_for
from web_world import Client, Web, web_lbfast

ALERTS, BACKUP = "/lbadmin/maintenance/alerts", "/lbadmin/maintenance/backup"
KEYS = "/lbadmin/local/keys"
GRAPHING, GRAPHS = "/lbadmin/local/graphing", "/lbadmin/reports/graphs"


@pytest.fixture(scope="module")
def appliance() -> Iterator[Web]:
    with web_lbfast([virtual_service(free_port(), [real_server("one", free_port())])]) as web:
        yield web


@pytest.fixture(scope="module")
def admin(appliance: Web) -> Client:
    client = appliance.client()
    client.login()
    return client


@pytest.fixture
def hook() -> Iterator[list[bytes]]:
    """Bodies that were posted to a webhook; the last item of its list is its port, at first the only one."""
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    heard.append(str(server.server_port).encode())
    yield heard
    server.shutdown()
    thread.join()
    server.server_close()


def save(admin: Client, place: str, verb: str, **fields: str) -> Any:
    """A form as a browser sends it: every field, those that are not named as they stand."""
    text = admin.get(place).text
    return admin.post(place, {"csrf": admin.csrf(), "do": verb, **_standing(text), **fields})


def _standing(text: str) -> dict[str, str]:
    found = re.findall(r'<input id="f-[^"]*" name="([^"]+)" value="([^"]*)"', text)
    found += re.findall(r'name="(alerts\.email\.tls)">.*?<option value="([^"]+)" selected', text)
    return dict(found)


def commit(web: Web) -> None:
    web.lb.call("candidate_commit", reason="test")


def test_alerts_are_configured_tested_and_what_fails_is_shown(appliance: Web, admin: Client, hook: list[bytes]) -> None:
    assert "Nobody is told" in admin.get(ALERTS).text
    good = f"http://127.0.0.1:{int(hook[0])}/{'x' * 10}"

    refused = save(admin, ALERTS, "save", **{"alerts.webhook": "ftp://somewhere", "alerts.most_per_hour": "0"})
    assert refused.status == 422
    assert refused.text.count('class="fault"') == 2, "each at its field"
    assert 'value="ftp://somewhere"' in refused.text, "nothing typed is lost"
    assert not appliance.lb.call("candidate")["is_changed"]

    bad = f"http://127.0.0.1:{free_port()}/"
    assert save(admin, ALERTS, "save", **{"alerts.webhook": bad}).status == 303
    assert "Nobody is told" in admin.get(ALERTS).text, "it waits to be committed"
    commit(appliance)
    tested = admin.post(ALERTS, {"csrf": admin.csrf(), "do": "test"})
    assert "not sent:" in tested.text
    assert "still failing" in tested.text

    assert save(admin, ALERTS, "save", **{"alerts.webhook": good}).status == 303
    commit(appliance)
    tested = admin.post(ALERTS, {"csrf": admin.csrf(), "do": "test"})
    assert "<strong>webhook</strong>: sent" in tested.text, tested.text
    assert b"this is a test of the alerts" in hook[-1]
    assert "still failing" not in tested.text

    # E-mail: a table that begins with its first field and goes with its last.
    mail = {"alerts.email.host": "127.0.0.1", "alerts.email.sender": "lb@example.org"}
    refused = save(admin, ALERTS, "save", **mail)
    assert refused.status == 422
    assert "recipients" in refused.text
    mail["alerts.email.recipients"] = "a@example.org, b@example.org"
    assert save(admin, ALERTS, "save", **mail).status == 303
    assert 'recipients = ["a@example.org", "b@example.org"]' in appliance.lb.call("candidate")["text"]
    empty = dict.fromkeys(mail, "")
    assert save(admin, ALERTS, "save", **empty).status == 303
    assert "email" not in appliance.lb.call("candidate")["text"]
    appliance.lb.call("candidate_discard")


def test_the_reach_of_the_graphs_is_edited_and_applied_within_a_sample(appliance: Web, admin: Client) -> None:
    page = admin.get(GRAPHING).text
    assert "3 series are kept" in page
    assert "5 years" not in admin.get(GRAPHS).text, "a year is kept"
    refused = save(admin, GRAPHING, "save", **{"graphs.keep_10s": "2d", "graphs.keep_1d": "a while"})
    assert refused.status == 422
    assert refused.text.count('class="fault"') == 2
    assert "a duration from 10m to 1d" in refused.text
    before = appliance.lb.call("series", range=3_600)
    assert (before["step"], before["reach"]) == (10, 372 * 86_400)
    assert save(admin, GRAPHING, "save", **{"graphs.keep_10s": "1d", "graphs.keep_1d": "1825d"}).status == 303
    assert "1825 d" in admin.get(GRAPHING).text
    assert appliance.lb.call("series", range=3_600)["reach"] == before["reach"], "it waits to be committed"
    commit(appliance)
    reach = lambda: appliance.lb.call("series", range=3_600)["reach"] == 1_825 * 86_400  # noqa: E731
    wait_for(reach, 40, "the next sample")
    shown = admin.get(GRAPHS).text
    assert "5 years" in shown
    earlier = re.search(r'rel="prev" href="[^"]*end=(\d+)"', shown)
    assert earlier, "the hour before"
    past = admin.get(f"{GRAPHS}?range=1h&end={earlier[1]}").text
    assert 'rel="next"' in past
    assert "until 20" in past
    assert admin.get(f"{GRAPHS}?range=1h&end={'9' * 30}").status == 200


def test_the_vendors_api_is_switched_on_the_page_and_a_key_has_the_end_that_was_typed(
    appliance: Web, admin: Client
) -> None:
    assert "It is on." in admin.get(KEYS).text
    assert admin.post(KEYS, {"csrf": admin.csrf(), "do": "disable"}).status == 303
    shown = admin.get(KEYS).text
    assert "It is off." in shown
    assert "By loadbalancer" in shown
    assert admin.ask("POST", "/api/v2/", '{"lbcli":[{"action":"list"}]}').status == 403
    assert admin.post(KEYS, {"csrf": admin.csrf(), "do": "enable"}).status == 303
    assert admin.ask("POST", "/api/v2/", '{"lbcli":[{"action":"list"}]}').status == 401
    audit = admin.get("/lbadmin/logs/audit").text
    assert "api v2 disabled" in audit
    assert "api v2 enabled" in audit
    for days in ("ninety", "0", "3651"):
        answer = admin.post(KEYS, {"csrf": admin.csrf(), "do": "create", "role": "report", "days": days})
        assert answer.status == 303, "no key"
        assert "expected 1 to 3650" in admin.get(KEYS).text
    assert appliance.lb.json("apikey", "list")["keys"] == []
    made = admin.post(KEYS, {"csrf": admin.csrf(), "do": "create", "role": "report", "days": "90"})
    assert made.status == 200
    (key,) = appliance.lb.json("apikey", "list")["keys"]
    assert key["expires"] is not None


def test_scheduled_backups_their_passphrase_and_their_failure(appliance: Web, admin: Client, hook: list[bytes]) -> None:
    assert "None are made" in admin.get(BACKUP).text
    phrase = Path(appliance.lb.directory) / "phrase"  # where control, which is not root, can read it
    url = f"http://127.0.0.1:{int(hook[0])}/"
    tables = {"alerts": {"webhook": url, "group_wait": "0s"}}
    appliance.lb.call("candidate_edit", operations=[{"op": "change_global", "settings": tables}])
    fields = {"backup.every": "1h", "backup.keep": "0", "backup.passphrase_file": str(phrase)}
    assert save(admin, BACKUP, "schedule", **fields).text.count('class="fault"') == 1
    phrase.write_text("")
    phrase.chmod(0o644)
    assert save(admin, BACKUP, "schedule", **(fields | {"backup.keep": "3"})).status == 303
    commit(appliance)
    appliance.lb.call("restart", process="control")  # looks at once, not half a minute later
    text = wait_for(lambda: "The last attempt failed" in (it := admin.get(BACKUP).text) and it, 40, "the failure")
    assert "is empty" in text
    wait_for(lambda: any(b"the scheduled backup failed" in body for body in hook), 20, "the alert")

    phrase.write_text("correct horse battery")
    appliance.lb.call("restart", process="control")
    text = wait_for(lambda: "Last one made:" in (it := admin.get(BACKUP).text) and it, 40, "the backup")
    assert "The last attempt failed" not in text
    assert "They are encrypted" in text
    (made,) = appliance.lb.call("backups")["backups"]
    assert made["encrypted"]
    assert made["scheduled"]


def test_an_upgrade_that_is_refused_and_one_that_is_not(tmp_path: Path) -> None:
    """Both are told, although the second replaces the very process that was asked."""
    installed = Installed(tmp_path / "program")
    env = {"PYTHONPATH": str(installed.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    place, button = "/lbadmin/maintenance/restart", "/lbadmin/maintenance/upgrade"
    with web_lbfast(env=env, allow_stderr=True) as web:
        client = web.client()
        client.login()
        unsure = client.post(button, {"csrf": client.csrf()})
        assert "tick the box" in client.get(unsure.location).text

        main = installed.folder / "lbfast" / "__main__.py"
        text = main.read_text()
        main.write_text("raise SystemExit('broken on purpose')\n")
        assert client.post(button, {"csrf": client.csrf(), "sure": "yes"}).status == 303
        shown = wait_for(lambda: "was refused" in (it := client.get(place).text) and it, 60, "the refusal")
        assert "broken on purpose" in shown, shown

        main.write_text(text)
        installed.version("9.9")
        assert client.post(button, {"csrf": client.csrf(), "sure": "yes"}).status == 303
        shown = wait_for(lambda: _told(client, place), 60, "the new version")
        assert "lbfast 9.9+" in shown


def _told(client: Client, place: str) -> str:
    """The page, once it says that the upgrade is done; for a moment nobody answers."""
    try:
        text = client.get(place).text
    except OSError:
        return ""
    return text if "Upgraded by" in text else ""
