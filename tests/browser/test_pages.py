"""Every page: no finding of axe, light and dark, at a desk and on a phone; and who may see and do what.

With LBFAST_SCREENSHOTS set to a directory, pictures of all pages are put there.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pseudo
import pytest
from harness import free_port, real_server, virtual_service
from live_world import named_servers
from servers import connect, read_line
from test_guide import login
from waiting import wait_for
from web_world import PASSWORD, Web, web_lbfast

from lbfast.model.words import LONGEST_LABEL

SERVICE = "service=Symphony"
PAGES = {
    "overview": "",
    "change": f"overview/change?do=drain&{SERVICE}&real=Symphony%20Server%201",
    "services": "cluster/services",
    "service-new": "cluster/services/new",
    "service-edit": f"cluster/services/edit?{SERVICE}",
    "service-clone": f"cluster/services/clone?{SERVICE}",
    "service": f"cluster/service?{SERVICE}",
    "reals": "cluster/reals",
    "real-new": f"cluster/reals/new?{SERVICE}",
    "health": f"cluster/health?{SERVICE}&real=Symphony%20Server%201",
    "persistence": f"cluster/persistence?{SERVICE}&client=127.0.0.5",
    "ha": "cluster/ha",
    "wizard": "cluster/wizard",
    "commit": "commit",
    "sockets": "local/sockets",
    "certificate": "local/certificate",
    "keys": "local/keys",
    "graphing": "local/graphing",
    "system": "local/system",
    "backup": "maintenance/backup",
    "alerts": "maintenance/alerts",
    "history": "maintenance/history",
    "restart": "maintenance/restart",
    "passwords": "maintenance/passwords",
    "view": "view",
    "schema": "view?show=schema",
    "kernel": "view?show=kernel",
    "graphs": f"reports/graphs?{SERVICE}",
    "connections": "reports/connections",
    "clients": "reports/clients",
    "availability": "reports/availability",
    "events": "logs/events",
    "search": "logs/search",
    "audit": "logs/audit",
    "support": "support",
    "account": "account",
}


# What somebody may call a service: code, right to left, and as long as it may be.
SCRIPT = "<script>document.title='taken'</script>"
BAD = SCRIPT + "\"'><img src=x onerror=document.title='taken'>" + "W" * 200
BAD = BAD[:LONGEST_LABEL]
BAD_REALS = (SCRIPT, "שרת מרכזי مخدم", "W" * LONGEST_LABEL, "abc\u202egnp.exe")


@pytest.fixture(scope="module")
def appliance() -> Iterator[Web]:
    """Three servers with clients, one of them drained, a change that waits, users of all roles."""
    port, names = free_port(), [f"Symphony Server {number}" for number in (1, 2, 3)]
    with named_servers(names) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        check = {"type": "connect", "interval": "500ms", "timeout": "400ms"}
        hostile = virtual_service(free_port(), [real_server(it, free_port()) for it in BAD_REALS], BAD)
        services = [virtual_service(port, reals, health_check=check)]
        if not os.environ.get("LBFAST_SCREENSHOTS"):  # a picture for the reader shows what he will see
            services.append(hostile)
        with web_lbfast(services) as web:
            for host in range(2, 12):
                with connect(port, source=f"127.0.0.{host}") as client:
                    read_line(client)
            web.lb.call("drain", service="Symphony", real="Symphony Server 3", reason="Windows updates")
            operation = {"op": "change_service", "service": "Symphony", "settings": {"retries": 5}}
            web.lb.call("candidate_edit", operations=[operation])
            for role in ("operate", "report"):
                _add_user(web, role)
            yield web


def _add_user(web: Web, role: str) -> None:
    client = web.client()
    client.login()
    form = {"csrf": client.csrf(), "do": "add", "user": role, "role": role, "password": PASSWORD}
    assert client.post("/lbadmin/maintenance/passwords", form).status == 303


DARK = ("overview", "service-edit", "commit")  # colours are all that differs


# What passes is not told of: with it, most of the time went into saying so.
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def axe_findings(tab: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(tab, options={"runOnly": WCAG, "resultTypes": ["violations"]})
    return [
        f"{it['id']}: {it['help']}: " + "; ".join(node["html"][:160] for node in it["nodes"][:3])
        for it in found.response["violations"]
    ]


def test_axe_finds_nothing_on_any_page(tab: Any, appliance: Web) -> None:
    """And none is too wide for a phone."""
    findings, wide = {}, []
    tab.goto(appliance.url + "/lbadmin/login")
    findings["login"] = axe_findings(tab)
    login(tab, appliance)
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        for name in PAGES if scheme == "light" else DARK:
            path = PAGES[name]
            answer = tab.goto(f"{appliance.url}/lbadmin/{path}")
            assert answer.status == 200, (name, answer.status)
            for details in tab.locator("details.advanced").all():
                details.locator("> summary").click()
            findings[f"{name}, {scheme}"] = axe_findings(tab)
            tab.set_viewport_size({"width": 390, "height": 844})
            if not tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"):
                wide.append(name)
            tab.set_viewport_size({"width": 1440, "height": 900})
    assert not {name: found for name, found in findings.items() if found}
    assert not wide


def test_hostile_labels_are_text_on_every_page(tab: Any, appliance: Web) -> None:
    """Never code, never wider than a phone, nothing for axe to find."""
    login(tab, appliance)
    shown = tab.locator("table.services").inner_text()
    assert BAD in shown
    assert "abc\\u202egnp.exe" in shown, "what reorders text is shown as its escape"
    tab.locator("tr.rs", has_text=SCRIPT).get_by_role("link", name="Drain").first.click()
    assert SCRIPT in tab.locator("dialog[open]").inner_text()
    assert tab.title() != "taken"
    findings = {}
    for name, path in PAGES.items():
        if SERVICE not in path and name not in ("overview", "services", "reals", "events", "availability", "view"):
            continue
        place = path.replace(SERVICE, f"service={quote(BAD)}").replace("Symphony%20Server%201", quote(BAD_REALS[0]))
        answer = tab.goto(f"{appliance.url}/lbadmin/{place}")
        assert answer.status == 200, (name, answer.status)
        assert tab.title() != "taken", name
        assert tab.evaluate("document.querySelectorAll('main script, img[src=x]').length") == 0, name
        assert name == "events" or "W" * 60 in tab.content(), name
        if found := axe_findings(tab):
            findings[name] = found
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        tab.set_viewport_size({"width": 1440, "height": 900})
    assert not findings


def test_roles_see_and_do_what_they_may(appliance: Web) -> None:
    """By plain HTTP: what a page does not show must be refused all the same."""
    drain = {"do": "drain", "service": "Symphony", "real": "Symphony Server 1"}
    wanted = {
        "report": {"/lbadmin/": 200, "/lbadmin/maintenance/history": 403, "/lbadmin/cluster/services/new": 403},
        "operate": {"/lbadmin/": 200, "/lbadmin/maintenance/history": 200, "/lbadmin/local/keys": 403},
        "loadbalancer": {"/lbadmin/": 200, "/lbadmin/local/keys": 200, "/lbadmin/logs/audit": 200},
    }
    for user, places in wanted.items():
        client = appliance.client()
        assert client.login(user).status == 303
        for place, status in places.items():
            assert client.get(place).status == status, (user, place)
        form = {"csrf": client.csrf(), **drain}
        assert client.post("/lbadmin/overview/change", form).status == (403 if user == "report" else 303), user
        assert ("overview/change" in client.get("/lbadmin/").text) is (user != "report")
        assert client.post("/lbadmin/commit", {"csrf": form["csrf"], "do": "nothing"}).status == (
            303 if user == "loadbalancer" else 403
        )
    appliance.lb.call("online", service="Symphony", real="Symphony Server 1")


@pytest.mark.skipif(not os.environ.get("LBFAST_SCREENSHOTS"), reason="only with LBFAST_SCREENSHOTS=DIRECTORY")
def test_screenshots(tab: Any, appliance: Web) -> None:
    folder = Path(os.environ["LBFAST_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    tab.goto(appliance.url + "/lbadmin/login")
    tab.screenshot(path=folder / "login.png")
    login(tab, appliance)
    for name, path in PAGES.items():
        tab.goto(f"{appliance.url}/lbadmin/{path}")
        wait_for(lambda: tab.evaluate("document.readyState") == "complete", 10, "the page")
        tab.screenshot(path=folder / f"{name}.png")
    tab.emulate_media(color_scheme="dark")
    tab.goto(appliance.url + "/lbadmin/")
    tab.screenshot(path=folder / "overview-dark.png")
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.screenshot(path=folder / "overview-phone.png")


# What the appliance calls its things, and what lbfast itself says, which is English in every language (docs/web.md).
SAID = (
    r"\d+ clients? (moved|bound).*|Expected to be empty.*|"
    r".* is on Symphony.*|If Symphony.*|It was new.*|No connection is open.*|.* is up: .*|"
    r"change virtual service.*|(drained|online) by .*|(up *: *)?connected|not checked|up|cubic|SHA-256|/var/log/.*"
)
PROCESSES = "control|health|web|workers|open|close|new|admin|process|stdout|file|syslog|journald|none"
DATA = re.compile(
    rf"^[\s·:]*({SAID}|{PROCESSES})\s*$|"
    r"Symphony( Server \d)?|Windows updates|lbfast|LBFAST|English|loadbalancer|configure|operate|report|HTTPS|"
    r"redispatch, reset|<script>.*|W{3,}|abc.u202egnp.exe|127\.[\d.:]+|\d+(\.\d+)? ?(ms|kB|MB|min)"
)


def speaking(appliance: Web) -> Any:
    """A client whose pages are in a language that marks each text; it is added as a hospital would add its own."""
    folder = appliance.lb.state_dir / "web" / "languages"
    client = appliance.client()
    client.login()
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)
        (folder / f"{pseudo.CODE}.po").write_text(pseudo.pseudo_po())
        appliance.lb.call("restart", process="web")
        wait_for(lambda: _selector(client), 30, "the language to be offered")
    form = {"csrf": client.csrf(), "language": pseudo.CODE, "next": "/lbadmin/account"}
    chosen = client.post("/lbadmin/theme", form)
    assert chosen.location == "/lbadmin/account"
    assert f"lbfast-language={pseudo.CODE}" in chosen.headers["set-cookie"]
    client.cookie += f"; lbfast-language={pseudo.CODE}"
    return client


def test_every_page_is_translated(appliance: Web) -> None:
    client = speaking(appliance)
    left = {
        words for path in PAGES.values() for words in pseudo.untranslated(client.get(f"/lbadmin/{path}").text, DATA)
    }
    assert not left, "\n".join(sorted(left))


def test_what_is_said_after_a_deed_is_translated(appliance: Web) -> None:
    """Notes, refusals and faults beside fields, with the values in them."""
    client = speaking(appliance)
    csrf = client.csrf()
    real = {"service": "Symphony", "real": "Symphony Server 2"}
    one = {"service": "Symphony", "client": "127.0.0.99"}
    copy = {"service": "Symphony", "label": "Copy", "ports": "44x"}
    deeds = {
        "⟦Symphony Server 2 of Symphony drains.⟧": ("overview/change", {"do": "drain", **real}),
        "⟦Symphony Server 2 of Symphony is online.⟧": ("overview/change", {"do": "online", **real}),
        '⟦Found "soon", expected': ("overview/change", {"do": "drain", "deadline": "soon", **real}),
        "⟦0 entries removed.⟧": ("cluster/persistence", {"do": "clear", **one}),
        "⟦127.0.0.99 is pinned to Symphony Server 2.⟧": ("cluster/persistence", {"do": "pin", **real, **one}),
        "⟦1 entry removed.⟧": ("cluster/persistence", {"do": "clear", **one}),
        "⟦There is no process of that name.⟧": ("maintenance/restart", {"process": "nobody"}),
        "⟦A password has at least 10 characters; this one has 3.⟧": (
            "maintenance/passwords",
            {"do": "password", "user": "report", "password": "abc"},
        ),
        "⟦loadbalancer cannot be removed": ("maintenance/passwords", {"do": "remove", "user": "loadbalancer"}),
        '⟦Found "44x", expected': ("cluster/services/clone", copy),
        "⟦User, password or code is wrong.⟧": ("login", {"user": "report", "password": "wrong"}),
        "⟦The form is too old or comes from another site.": ("commit", {"csrf": "no", "do": "discard"}),
    }
    for words, (place, form) in deeds.items():
        answer = client.post(f"/lbadmin/{place}", {"csrf": csrf, **form})
        shown = client.get(answer.location) if answer.status == 303 else answer
        assert words in html.unescape(shown.text), (words, place, answer.status)
    assert "⟦There is no such page.⟧" in client.get("/lbadmin/nowhere").text
    assert "⟦close⟧" in client.get("/lbadmin/logs/events?kind=connections").text


def test_what_the_script_writes_is_translated(tab: Any, appliance: Web) -> None:
    speaking(appliance)
    login(tab, appliance)
    cookie = {"name": "lbfast-language", "value": pseudo.CODE, "domain": "127.0.0.1", "path": "/lbadmin/"}
    tab.context.add_cookies([cookie])
    tab.goto(f"{appliance.url}/lbadmin/")
    row = tab.locator("tr.rs", has_text="Symphony Server 1")
    row.locator(".state.up", has_text="⟦Up⟧").wait_for()
    appliance.lb.call("drain", service="Symphony", real="Symphony Server 1")
    row.locator(".state.drain", has_text="⟦Draining⟧").wait_for()  # live
    tab.get_by_role("searchbox").fill("symphony server")
    tab.locator("[data-found]", has_text="⟦Services shown: 1 of").wait_for(state="attached")
    appliance.lb.call("online", service="Symphony", real="Symphony Server 1")
    row.locator(".state.up", has_text="⟦Up⟧").wait_for()


def _selector(client: Any) -> bool:
    try:
        return f'<option value="{pseudo.CODE}"' in client.get("/lbadmin/account").text
    except OSError:
        return False
