"""In the browser: history and revert, backup and restore, restart, reports, logs and the support archive."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import free_port, real_server, virtual_service
from live_world import named_servers
from servers import connect, read_line
from test_guide import login
from waiting import wait_for
from web_world import PASSWORD, Client, Web, web_lbfast

PASSPHRASE = "three old kettles"


@pytest.fixture(scope="module")
def appliance() -> Iterator[Web]:
    """One service with two servers; what clients do is logged since a commit."""
    port = free_port()
    with named_servers(("one", "two")) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with web_lbfast([virtual_service(port, reals)]) as web:
            client = web.client()
            client.login()
            form = {"csrf": client.csrf(), "do": "add", "user": "watcher", "role": "report", "password": PASSWORD}
            assert client.post("/lbadmin/maintenance/passwords", form).status == 303
            operation = {"op": "change_global", "settings": {"log": {"target": "stdout"}}}
            web.lb.call("candidate_edit", operations=[operation])
            web.lb.call("candidate_commit", reason="log")
            yield web


def client_of(web: Web, source: str) -> Any:
    return connect(int(web.lb.call("overview")["virtual_services"][0]["ports"]), source=source)


def visit(web: Web, source: str) -> None:
    with client_of(web, source) as client:
        read_line(client)


def events(web: Web) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.lb.call("events", limit=1000)["events"]
    return found


def retries(web: Web) -> str:
    found = [line for line in web.lb.call("candidate")["text"].splitlines() if line.startswith("retries")]
    return found[0].partition("= ")[2] if found else ""


def commit(web: Web, value: int, reason: str) -> None:
    operation = {"op": "change_service", "service": "Symphony", "settings": {"retries": value}}
    web.lb.call("candidate_edit", operations=[operation])
    web.lb.call("candidate_commit", reason=reason)


@pytest.fixture
def asked(tab: Any) -> list[str]:
    """The questions that pages have asked; each is answered with yes."""
    found: list[str] = []
    tab.on("dialog", lambda dialog: found.append(dialog.message))
    return found


def downloaded(tab: Any, button: Any) -> bytes:
    with tab.expect_download() as download:
        button.click()
    return Path(download.value.path()).read_bytes()


def test_an_earlier_version_is_compared_and_runs_again(tab: Any, appliance: Web, asked: list[str]) -> None:
    commit(appliance, 5, "five")
    commit(appliance, 7, "seven")
    login(tab, appliance)
    tab.goto(appliance.url + "/lbadmin/maintenance/history")
    row = tab.locator("tbody tr", has_text="five")
    row.get_by_role("link", name="Against running").click()
    shown = tab.locator("pre.diff").inner_text()
    assert "-retries = 7" in shown
    assert "+retries = 5" in shown
    tab.locator("tbody tr", has_text="five").first.get_by_role("button", name="Revert to it").click()
    tab.locator(".note.good", has_text="runs again, as version").wait_for()
    assert len(asked) == 1, asked
    assert retries(appliance) == "5"
    assert appliance.lb.call("history")["versions"][0]["by"] == "loadbalancer"


def with_another_password(web: Web) -> Client:
    """A user of the backup who has changed the password since, logged in."""
    admin, other = web.client(), web.client()
    admin.login()
    password = PASSWORD + " two"
    form = {"csrf": admin.csrf(), "do": "password", "user": "watcher", "password": password}
    assert admin.post("/lbadmin/maintenance/passwords", form).status == 303
    assert other.login("watcher", password).location == "/lbadmin/"
    return other


def test_a_backup_is_made_looked_at_and_restored(tab: Any, appliance: Web) -> None:
    commit(appliance, 3, "before the backup")
    login(tab, appliance)
    tab.goto(appliance.url + "/lbadmin/maintenance/backup")
    tab.locator("#passphrase").fill(PASSPHRASE)
    tab.get_by_role("button", name="Make a backup").click()
    tab.locator(".note.good", has_text="is made").wait_for()
    commit(appliance, 9, "after the backup")
    other = with_another_password(appliance)
    row = tab.locator("tbody tr").first
    assert "yes" in row.inner_text(), "it is encrypted"
    row.locator("input[type=password]").fill("another phrase")
    row.get_by_role("button", name="Restore ...").click()
    tab.locator(".note.bad").wait_for()
    row.locator("input[type=password]").fill(PASSPHRASE)
    row.get_by_role("button", name="Restore ...").click()
    card = tab.locator("section.card", has_text="would change this")
    card.locator("pre.diff", has_text="retries = 3").wait_for()
    assert retries(appliance) == "9", "so far it was only looked at"
    card.get_by_label("Passphrase").fill(PASSPHRASE)
    card.get_by_role("button", name="Restore, and go back").click()
    tab.get_by_role("heading", name="Waiting to be confirmed").wait_for()
    assert retries(appliance) == "3"
    assert other.get("/lbadmin/account").status == 303, "whose password was another then is out"
    tab.get_by_role("button", name="Keep it").click()  # and who restored is still there
    tab.get_by_role("heading", name="Waiting to be confirmed").wait_for(state="detached")
    assert appliance.lb.call("history")["unconfirmed"] is None


def test_the_workers_are_restarted_only_after_two_questions(tab: Any, appliance: Web, asked: list[str]) -> None:
    login(tab, appliance)
    with client_of(appliance, "127.0.0.9") as client:
        read_line(client)
        before = appliance.lb.call("statistics")["workers"][0]["pid"]
        tab.goto(appliance.url + "/lbadmin/maintenance/restart")
        tab.locator('button[value="workers"]').click()
        tab.locator(".note.good", has_text="no connection was cut").wait_for()
        assert len(asked) == 2, asked
        assert appliance.lb.call("statistics")["workers"][0]["pid"] != before
        client.sendall(b"x")  # it is carried on


def test_reports_are_shown_for_each_time_and_downloaded(tab: Any, appliance: Web) -> None:
    login(tab, appliance)
    tab.goto(appliance.url + "/lbadmin/reports/graphs?service=Symphony&real=one")
    for title in ("6 hours", "1 day", "1 week", "1 month", "1 year", "1 hour"):
        tab.get_by_role("link", name=title, exact=True).click()
        tab.locator("a[aria-current=true]", has_text=title).wait_for()
        headings = tab.locator("figcaption h2").all_inner_texts()
        assert headings == [
            *("Connections", "New connections", "Traffic", "Time to connect", "Failed connects", "Health"),
        ]
    columns = {
        "graphs?service=Symphony": "time,connections,opened,bytes_in,bytes_out,connect_ms,failures,up",
        "connections?service=Symphony": "id,worker,client,",
        "clients?service=Symphony": "client,connections,bytes_in,bytes_out,reals,is_crowd",
        "availability": "service,real,availability",
    }
    for place, head in columns.items():
        tab.goto(f"{appliance.url}/lbadmin/reports/{place}")
        text = downloaded(tab, tab.get_by_role("link", name="Download as CSV")).decode()
        assert text.startswith(head), (place, text[:100])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["real"] for row in rows} == {"one", "two"}


def test_the_log_is_followed_held_searched_and_downloaded(tab: Any, appliance: Web) -> None:
    login(tab, appliance)
    visit(appliance, "127.0.0.40")
    wait_for(lambda: "127.0.0.40" in str([it for it in events(appliance) if it["event"] == "close"]), 20, "its record")
    waiting: list[Any] = []
    tab.route("**/logs/events/live*", lambda route: waiting.append(route))
    with tab.expect_request("**/logs/events/live*"):
        tab.goto(appliance.url + "/lbadmin/logs/events?kind=connections")
    before = tab.locator("[data-tail] tr", has_text="127.0.0.40").count()
    visit(appliance, "127.0.0.41")  # when the page is there, and does not follow yet
    for route in waiting:
        route.continue_()
    tab.locator("[data-tail] tr", has_text="127.0.0.41").first.wait_for()
    assert tab.locator("[data-tail] tr", has_text="127.0.0.40").count() == before, "none twice, none lost"
    tab.get_by_role("button", name="Pause").click()
    visit(appliance, "127.0.0.42")
    tab.locator("[data-tail-state]", has_text="More: ").wait_for()
    assert tab.locator("[data-tail] tr", has_text="127.0.0.42").count() == 0
    tab.get_by_role("button", name="Pause").click()  # what was missed comes with the page
    tab.locator("[data-tail] tr", has_text="127.0.0.42").first.wait_for()

    def found() -> list[str]:
        tab.goto(appliance.url + "/lbadmin/logs/search?span=1h&kind=connections&client=127.0.0.41")
        return list(tab.locator("tbody tr td:last-child").all_inner_texts())

    rows = wait_for(lambda: [it for it in found() if "→" in it], 20, "the log to have the visit")
    assert all("127.0.0.41" in it for it in rows), "of that client alone"
    text = downloaded(tab, tab.get_by_role("button", name="Download as CSV")).decode()
    assert {row["client"] for row in csv.DictReader(io.StringIO(text))} == {"127.0.0.41"}
    tab.goto(appliance.url + "/lbadmin/logs/audit")
    tab.locator(".note.good", has_text="is whole").wait_for()
    assert b'"login"' in downloaded(tab, tab.get_by_role("link", name="Download"))


def test_the_support_archive_hides_clients_unless_they_are_wanted(tab: Any, appliance: Web) -> None:
    login(tab, appliance)
    appliance.lb.call("persistence_pin", service="Symphony", client="10.77.66.55", real="one")
    for is_masked in (True, False):
        tab.goto(appliance.url + "/lbadmin/support")
        tab.get_by_label("Mask client addresses").set_checked(is_masked)
        tab.get_by_role("button", name="Make a support archive").click()
        name = tab.locator(".note.good").inner_text().partition(" ")[0]
        with zipfile.ZipFile(io.BytesIO(downloaded(tab, tab.get_by_role("link", name=name)))) as archive:
            whole = b"".join(archive.read(it) for it in archive.namelist())
        assert (b"10.77.66.55" in whole) is not is_masked
        assert PASSPHRASE.encode() not in whole
