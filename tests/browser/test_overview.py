"""The overview beside live traffic: drain and halt, figures without a reload, a web process that dies."""

from __future__ import annotations

import os
import signal
from typing import Any

from harness import free_port, real_server, virtual_service
from live_world import Load, named_servers
from servers import connect, read_line
from test_guide import login
from waiting import wait_for
from web_world import HOME, Web, web_lbfast

HOSTILE = '<script>document.title="taken"</script>'
RIGHT_TO_LEFT = "abc\u202egnp.exe"
LONG = "L" * 200


def state_of(web: Web, real: str) -> dict[str, Any]:
    service = web.lb.json("overview")["virtual_services"][0]
    return next(it for it in service["real_servers"] if it["label"] == real)


def choose(tab: Any, what: str, real: str) -> None:
    """A button of a server's row, then the dialog's own."""
    tab.locator("tr.rs", has_text=real).get_by_role("link", name=what, exact=False).first.click()
    dialog = tab.locator("dialog[open]")
    dialog.get_by_label("Reason").fill("a test")
    dialog.get_by_role("button", name=what, exact=True).click()
    tab.locator(".note.good").wait_for()


def test_drain_halt_and_online_with_live_traffic(tab: Any) -> None:
    port = free_port()
    with named_servers(("A", "B")) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with web_lbfast([virtual_service(port, reals)]) as web, connect(port, source="127.0.0.9") as client:
            home = read_line(client).decode().strip()
            other = "B" if home == "A" else "A"
            login(tab, web)
            row = tab.locator("tr.rs", has_text=home)
            row.locator('[data-cell="connections"]', has_text="1").wait_for()
            choose(tab, "Drain", home)
            row.locator(".state.drain").wait_for()
            assert state_of(web, home)["admin"] == "drain"
            assert "drained by loadbalancer" in state_of(web, home)["reason"]
            client.sendall(b"x")  # a drain cuts nobody
            for source in range(20, 26):
                with connect(port, source=f"127.0.0.{source}") as new:
                    assert read_line(new).decode().strip() == other
            choose(tab, "Halt", home)
            row.locator(".state.halt").wait_for()
            assert read_to_end(client), "a halt cuts what is open"
            row.locator('[data-cell="connections"]', has_text="0").wait_for()
            choose(tab, "Online", home)
            row.locator(".state.up").wait_for()
            assert state_of(web, home)["admin"] == "online"


def read_to_end(client: Any) -> bool:
    """Whether the connection ends."""
    client.settimeout(10)
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_dead_or_stopped_web_process_concerns_no_traffic(tab: Any) -> None:
    port = free_port()
    with named_servers(("A", "B")) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with web_lbfast([virtual_service(port, reals)]) as web, Load(port) as load:
            login(tab, web)
            pid = web.lb.child("web")
            os.kill(pid, signal.SIGSTOP)
            seen = load.visits
            wait_for(lambda: load.visits > seen + 20, 20, "visits while the web process hangs")
            os.kill(pid, signal.SIGKILL)
            web.lb.wait_replaced("web", pid)
            wait_for(lambda: load.visits > seen + 40, 20, "visits after it was killed")
            assert not load.split
            assert not load.failures
            tab.goto(web.url + HOME)
            tab.get_by_role("heading", name="System Overview").wait_for()  # the session is kept, too
            web.lb.allow_stderr = True  # it tells of the death


def test_hostile_labels_are_text(tab: Any) -> None:
    services = [
        virtual_service(free_port(), [real_server(label, free_port())], label)
        for label in (HOSTILE, RIGHT_TO_LEFT, LONG)
    ]
    with web_lbfast(services) as web:
        login(tab, web)
        shown = tab.locator("table.services").inner_text()
        assert HOSTILE in shown
        assert "abc\\u202egnp.exe" in shown, "what reorders text is shown as its escape"
        for path in ("cluster/services", "cluster/reals", "logs/events", "reports/availability", "view"):
            tab.goto(f"{web.url}/lbadmin/{path}")
            assert tab.title() != "taken", path
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{path} is too wide"
        tab.goto(f"{web.url}{HOME}")
        tab.locator("tr.rs", has_text="script").get_by_role("link", name="Drain").first.click()
        assert HOSTILE in tab.locator("dialog[open]").inner_text()
        assert tab.title() != "taken"


def test_find_filter_and_keys(tab: Any) -> None:
    services = [virtual_service(free_port(), [real_server("one", 9, "127.0.0.77")], f"Service {n}") for n in range(30)]
    with web_lbfast(services) as web:
        login(tab, web)
        assert tab.locator("tbody.service:visible").count() == 30
        tab.keyboard.press("/")
        tab.keyboard.type("service 17")
        assert tab.locator("tbody.service:visible").count() == 1
        tab.keyboard.press("Tab")
        tab.get_by_role("searchbox").fill("")
        tab.get_by_role("heading", name="System Overview").click()
        tab.keyboard.press("j")
        assert tab.evaluate("document.activeElement.closest('tbody').dataset.service") == "Service 0"
        row = tab.locator("tbody.service").first.locator("tr.rs")
        before = row.is_visible()
        tab.keyboard.press("o")
        assert row.is_visible() is not before
        web.lb.call("drain", service="Service 3", real="one")
        tab.get_by_role("button", name="Drained or halted 1").click()  # the count came without a reload
        assert tab.locator("tbody.service:visible").count() == 1
