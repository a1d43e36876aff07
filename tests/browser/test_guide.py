"""The vendor's guide, section 9, click by click in a browser, until an HTTPS client goes through the new service."""

from __future__ import annotations

from typing import Any

import trustme
from harness import free_port, real_server, virtual_service
from servers import client_context, https_get, https_server
from waiting import wait_for
from web_world import HOME, PASSWORD, Web, web_lbfast


def field(tab: Any, label: str) -> Any:
    """The input of a label, not the help button beside it."""
    return tab.get_by_label(label).and_(tab.locator("input, select")).first


def setup(tab: Any, web: Web) -> None:
    """The first start: the link of the console, a password, logged in."""
    tab.goto(f"{web.url}/lbadmin/setup?code={web.setup_code}")
    field(tab, "New password").fill(PASSWORD)
    field(tab, "The same again").fill(PASSWORD)
    tab.get_by_role("button", name="Set password and log in").click()
    tab.get_by_role("heading", name="System Overview").wait_for()
    tab.wait_for_load_state("load")


def login(tab: Any, web: Web, user: str = "loadbalancer", password: str = PASSWORD) -> None:
    tab.goto(web.url + HOME)
    field(tab, "Username").fill(user)
    field(tab, "Password").fill(password)
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_role("heading", name="System Overview").wait_for()
    tab.wait_for_load_state("load")  # the heading comes before the rows and the script


def add_real(tab: Any, label: str, address: str, port: int) -> None:
    field(tab, "Label").fill(label)
    field(tab, "Real Server IP Address").fill(address)
    field(tab, "Real Server Port").fill(str(port))
    tab.get_by_role("button", name="Update", exact=True).click()
    tab.get_by_text(f"{label} is in the candidate.").wait_for()


def test_section_9_from_an_empty_appliance(tab: Any, ca: trustme.CA) -> None:
    port, names = free_port(), ("Symphony Server 1", "Symphony Server 2")
    with web_lbfast(with_password=False) as web, https_server(names[0], ca) as one, https_server(names[1], ca) as two:
        setup(tab, web)
        tab.get_by_text("No virtual service yet").wait_for()
        # 9.1
        tab.get_by_role("link", name="Cluster Configuration").click()
        tab.get_by_role("link", name="Layer 7 – Virtual Services").click()
        tab.get_by_role("link", name="Add a new Virtual Service").first.click()
        field(tab, "Label").fill("Symphony")
        field(tab, "Virtual Service IP Address").fill("127.0.0.1")
        field(tab, "Ports").fill("44x")
        field(tab, "Layer 7 Protocol").select_option("TCP Mode")
        tab.get_by_role("button", name="Update", exact=True).click()
        fault = tab.locator("#f-ports-fault")
        assert '"44x"' in fault.inner_text(), "the fault stands at the field"
        assert field(tab, "Label").input_value() == "Symphony", "nothing typed is lost"
        field(tab, "Ports").fill(str(port))
        tab.get_by_role("button", name="Update", exact=True).click()
        # 9.2
        tab.get_by_role("heading", name="Layer 7 Add a new Real Server – Symphony").wait_for()
        add_real(tab, names[0], "127.0.0.1", one.port)
        tab.get_by_role("link", name="Add a new Real Server").click()
        assert field(tab, "Label").input_value() == names[1], "the next name is proposed"
        add_real(tab, names[1], "127.0.0.1", two.port)
        # 9.3
        assert web.lb.json("overview")["virtual_services"] == [], "nothing runs before the commit"
        tab.get_by_role("link", name="Review and commit").click()
        tab.get_by_text("add virtual service 'Symphony'").first.wait_for()
        field(tab, "Reason").fill("the guide")
        tab.get_by_role("button", name="Commit", exact=True).click()
        # 10
        tab.get_by_role("heading", name="System Overview").wait_for()
        tab.locator("tr.vs", has_text="Symphony").locator(".state.up").wait_for()
        met = wait_for(lambda: https_get(port, client_context(ca)), 10, "an answer through the service")
        assert any(name in str(met) for name in names)
        history = web.lb.call("history")["versions"][0]
        assert (history["by"], history["reason"]) == ("loadbalancer", "the guide")


def test_wizard_in_three_steps(tab: Any, ca: trustme.CA) -> None:
    port = free_port()
    with web_lbfast() as web, https_server("one", ca, port=0) as server:
        login(tab, web)
        tab.get_by_role("link", name="Setup Wizard").click()
        field(tab, "Label").fill("Symphony")
        field(tab, "Virtual Service IP Address").fill("127.0.0.2")
        field(tab, "Ports").fill(str(server.port))
        field(tab, "Health check").select_option("none")
        tab.get_by_role("button", name="Next").click()
        field(tab, "Address of server 1").fill("127.0.0.1")
        field(tab, "Address of server 2").fill("nonsense")
        tab.get_by_role("button", name="Next: commit").click()
        assert '"nonsense"' in tab.locator("#real-1-address-fault").inner_text(), "the fault stands at the field"
        assert '""' in tab.locator("#real-2-address-fault").inner_text()
        assert field(tab, "Address of server 1").input_value() == "127.0.0.1", "nothing typed is lost"
        field(tab, "Address of server 2").fill("")
        field(tab, "Label of server 2").fill("")
        field(tab, "Label of server 3").fill("")
        tab.get_by_role("button", name="Next: commit").click()
        tab.get_by_role("button", name="Commit", exact=True).click()
        tab.get_by_role("heading", name="System Overview").wait_for()
        tab.locator("tr.rs", has_text="Symphony Server 1").locator(".state.up").wait_for()
        assert port  # a port of the test's own is taken by nobody: the service listens beside its server


def test_commit_with_a_timer_is_kept_or_goes_back(tab: Any) -> None:
    with web_lbfast([virtual_service(free_port(), [real_server("one", free_port())], "A")]) as web:
        login(tab, web)
        for what, stays in (("Go back now", False), ("Keep it", True)):
            tab.goto(web.url + "/lbadmin/cluster/services/edit?service=A")
            tab.get_by_text("[Advanced +]").click()
            field(tab, "Retries").fill("7")
            tab.get_by_role("button", name="Update", exact=True).click()
            tab.get_by_role("link", name="Review and commit").click()
            tab.get_by_role("button", name="unless I keep it").click()
            tab.get_by_role("heading", name="Waiting to be confirmed").wait_for()
            tab.get_by_role("button", name=what).click()
            tab.get_by_role("heading", name="Waiting to be confirmed").wait_for(state="detached")
            assert ("retries = 7" in web.lb.call("candidate")["text"]) is stays
