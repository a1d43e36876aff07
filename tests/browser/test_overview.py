"""The overview beside live traffic: drain and halt, figures without a reload, a web process that dies."""

from __future__ import annotations

import os
import signal
from typing import Any

from harness import free_port, free_ports, real_server, virtual_service
from live_world import Load, named_servers
from servers import connect, read_line
from test_guide import login
from waiting import wait_for
from web_world import HOME, Web, web_lbfast


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


def test_find_filter_and_keys(tab: Any) -> None:
    reals = [real_server("one", 9, "127.0.0.77")]
    services = [virtual_service(port, reals, f"Service {n}") for n, port in enumerate(free_ports(30))]
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
        wait_for(lambda: row.is_visible() is not before, 20, "it to be opened or closed")
        tab.get_by_role("button", name="Close all").click()
        wait_for(lambda: tab.locator("tr.rs:visible").count() == 0, 20, "all to be closed")
        tab.get_by_role("button", name="Open all").click()
        wait_for(lambda: tab.locator("tr.rs:visible").count() == 30, 20, "all to be open")
        web.lb.call("drain", service="Service 3", real="one")
        tab.get_by_role("button", name="Drained or halted 1").click()  # the count came without a reload
        assert tab.locator("tbody.service:visible").count() == 1


def test_of_many_services_the_closed_ones_come_without_their_servers(tab: Any) -> None:
    with named_servers(("one",)) as servers:
        reals = [real_server("Theatre PC", servers["one"].port)]
        services = [virtual_service(port, reals, f"Service {n}") for n, port in enumerate(free_ports(30))]
        with web_lbfast(services) as web:
            is_up = lambda: all(it["state"] == "up" for it in web.lb.json("overview")["virtual_services"])  # noqa: E731
            wait_for(is_up, 20, "all services to be up")
            login(tab, web)
            assert tab.locator("tr.rs").count() == 0
            tab.get_by_role("searchbox").fill("theatre pc")
            assert tab.locator("tbody.service:visible").count() == 30, "they are found by what is not there yet"
            tab.get_by_role("searchbox").fill("service 17")
            body = tab.locator("tbody.service:visible")
            body.locator("[data-toggle]").click()
            body.locator("tr.rs", has_text="Theatre PC").wait_for()
            assert tab.locator("tr.rs").count() == 1
            web.lb.call("halt", service="Service 17", real="Theatre PC")
            body.locator("tr.rs .state.halt").wait_for()  # and they are live from then on
            web.lb.call("drain", service="Service 3", real="Theatre PC")
            tab.get_by_role("searchbox").fill("")
            tab.get_by_role("button", name="Drained or halted 2").click()
            assert tab.locator("tbody.service:visible").count() == 2


def test_a_drain_with_a_deadline_is_forecast_corrected_and_done(tab: Any) -> None:
    port = free_port()
    with named_servers(("A", "B")) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with web_lbfast([virtual_service(port, reals)]) as web, connect(port, source="127.0.0.9") as client:
            home = read_line(client).decode().strip()
            login(tab, web)
            tab.locator("tr.rs", has_text=home).get_by_role("link", name="Drain").first.click()
            dialog = tab.locator("dialog[open]")
            dialog.get_by_text("1 client bound to it, 1 of them connected").wait_for()
            dialog.get_by_text("Not yet safe to patch").wait_for()
            dialog.get_by_label("Stagger").fill("10s")
            dialog.get_by_role("button", name="Forecast").click()
            assert "without a deadline" in dialog.locator("#change-deadline-fault").inner_text()
            dialog.get_by_label("Deadline").first.fill("soon")
            dialog.get_by_role("button", name="Drain", exact=True).click()
            dialog.locator("#change-deadline-fault", has_text="soon").wait_for()
            assert dialog.locator("#change-stagger").input_value() == "10s", "nothing typed is lost"
            assert state_of(web, home)["admin"] == "online"
            dialog.locator("#change-deadline").fill("30m")
            dialog.get_by_label("Cut the connections").check()
            dialog.get_by_role("button", name="Forecast").click()
            dialog.locator(".forecast li", has_text="they are cut over 10 s").wait_for()
            dialog.get_by_role("button", name="Drain", exact=True).click()
            tab.locator(".note.good").wait_for()
            assert state_of(web, home)["admin"] == "drain"
            plan = web.lb.call("drain_plan", service="Symphony", real=home)
            assert (plan["cut"], plan["stagger"]) == (True, 10.0)
            assert 1_700 < plan["deadline_in"] <= 1_800


def test_a_commit_says_what_becomes_of_connections_of_removed_servers(tab: Any) -> None:
    port = free_port()
    with named_servers(("A", "B")) as servers:
        reals = [real_server(name, server.port) for name, server in servers.items()]
        with web_lbfast([virtual_service(port, reals)]) as web, connect(port, source="127.0.0.9") as client:
            home = read_line(client).decode().strip()
            login(tab, web)
            web.lb.call("candidate_edit", operations=[{"op": "delete_real", "service": "Symphony", "real": home}])
            tab.goto(web.url + "/lbadmin/commit")
            cut = tab.locator("dl.figures div", has_text="Connections cut").locator("dd")
            assert cut.inner_text() == "1"
            tab.locator("#removed").select_option("drain")
            tab.locator("#cut_after").fill("later")
            tab.get_by_role("button", name="Commit", exact=True).click()
            tab.locator("#cut_after-fault", has_text="later").wait_for()
            assert tab.locator("#removed").input_value() == "drain", "nothing typed is lost"
            tab.locator("#cut_after").fill("1h")
            tab.get_by_role("button", name="Show the impact of this").click()
            wait_for(lambda: cut.inner_text() == "0", 20, "the impact of the other policy")
            tab.get_by_role("button", name="Commit", exact=True).click()
            tab.get_by_role("heading", name="System Overview").wait_for()
            assert [it["label"] for it in web.lb.json("overview")["virtual_services"][0]["real_servers"]] != [home]
            client.sendall(b"x")  # it may end by itself
            kept = (web.lb.state_dir / "removals.json").read_text()
            assert ('"length": 3600' in kept, home in kept) == (True, True), kept
