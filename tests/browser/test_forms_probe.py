"""*Test now*, in the browser: on the page of a real server, and in the forms before anything is saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import free_port, real_server, virtual_service
from live_world import named_servers
from test_guide import field, login
from web_world import Web, web_lbfast

EDIT = "/lbadmin/cluster/services/edit?service=Symphony"


@pytest.fixture(scope="module")
def appliance() -> Iterator[Web]:
    with named_servers(("one",)) as servers:
        reals = [real_server("one", servers["one"].port)]
        check = {"type": "connect", "interval": "1h"}
        with web_lbfast([virtual_service(free_port(), reals, health_check=check)]) as web:
            yield web


def test_the_page_of_a_real_server_shows_what_a_probe_sees_now(tab: Any, appliance: Web) -> None:
    login(tab, appliance)
    tab.goto(appliance.url + "/lbadmin/cluster/health?service=Symphony&real=one")
    tab.get_by_role("button", name="Test now").click()
    told = tab.locator("[data-test-part]")
    told.get_by_text("connected to 127.0.0.1:").wait_for()
    assert told.locator(".state.up").inner_text().strip() == "passed"


def test_the_form_tests_what_is_typed_and_keeps_it(tab: Any, appliance: Web) -> None:
    login(tab, appliance)
    tab.goto(appliance.url + EDIT)
    tab.get_by_text("[Advanced +]").click()
    tab.locator("#f-health_check-type").select_option("http")
    tab.locator("#f-health_check-path").fill("/nowhere")
    tab.get_by_role("button", name="Test now").click()
    told = tab.locator("[data-test-part]")
    told.get_by_text("GET /nowhere sent").wait_for()
    assert told.locator(".state.down").inner_text().strip() == "failed"
    assert "does not speak HTTP" in told.inner_text()
    assert tab.locator("#f-health_check-path").input_value() == "/nowhere", "nothing typed is lost"
    assert not appliance.lb.call("candidate")["is_changed"], "and nothing is saved"
    tab.locator("#f-test-address").fill("127.0.0.1:99999")
    tab.get_by_role("button", name="Test now").click()
    tab.locator("#f-test-address-fault").wait_for()
    tab.locator("#f-health_check-interval").fill("often")
    tab.locator("#f-test-address").fill("")
    tab.get_by_role("button", name="Test now").click()
    tab.locator("#f-health_check-interval-fault").wait_for()
    tab.locator("#f-health_check-interval").fill("7s")
    tab.get_by_role("button", name="Update", exact=True).click()
    tab.get_by_text("Symphony is changed in the candidate.").wait_for()
    assert 'path = "/nowhere"' in appliance.lb.call("candidate")["text"]
    appliance.lb.call("candidate_discard")


def test_a_real_server_is_tested_before_it_is_added(tab: Any, appliance: Web) -> None:
    port = free_port()
    login(tab, appliance)
    tab.goto(appliance.url + "/lbadmin/cluster/reals/new?service=Symphony")
    field(tab, "Real Server IP Address").fill("127.0.0.1")
    field(tab, "Real Server Port").fill(str(port))
    tab.get_by_role("button", name="Test now").click()
    tab.locator("[data-test-part]").get_by_text(f"connect to 127.0.0.1:{port}: Connection refused").first.wait_for()
    assert field(tab, "Real Server Port").input_value() == str(port)
