"""High-Availability Configuration, as the guide's appendix has it: two boxes, a browser, the peer's password."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from conftest import CHROMIUM, FLAGS
from waiting import wait_for

sys.path.append(str(Path(__file__).parent.parent / "netns"))
from ha_lab import BOXES, CABLE, Lab, lab
from test_pages import axe_findings

pytestmark = pytest.mark.root

PASSWORD, OTHER = "correct horse battery", "another horse entirely"
WEB = '[web]\naddress = "0.0.0.0"\nport = 9443\n'
HA = "/lbadmin/cluster/ha"


@pytest.fixture(scope="module")
def boxes(ca: trustme.CA) -> Iterator[Lab]:
    """Box a serves; box b is as it came: no services, its web process not running while it is asked."""
    with lab("hw") as found:
        found.serve(ca)
        found.start("a", config=found.config().replace("[ha]", WEB + "[ha]"))
        found.start("b", config="workers = 1\n" + WEB)
        for name, password in (("a", PASSWORD), ("b", OTHER)):
            (found.directory / "password").write_text(password)
            code, _, err = found.boxes[name].cli("passwd", "--password-file", str(found.directory / "password"))
            assert code == 0, err
        yield found
        for box in found.boxes.values():
            if box.process.poll() is None:
                box.stop()


@pytest.fixture(scope="module")
def page(boxes: Lab) -> Iterator[Any]:
    """A tab of a browser on the clients' network, logged in on box a."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs the program chromium (Debian: chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    inside = boxes.directory / "browser"
    inside.write_text(f'#!/bin/sh\nexec {" ".join(boxes.inside("c"))} {program} "$@"\n')
    inside.chmod(0o755)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(inside), args=list(FLAGS))
        context = browser.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 900})
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on("dialog", lambda dialog: dialog.accept())
        login(tab, "a", PASSWORD)
        yield tab
        browser.close()


def url(name: str, path: str = HA) -> str:
    return f"https://{BOXES[name]}:9443{path}"


def login(tab: Any, name: str, password: str) -> None:
    tab.goto(url(name, "/lbadmin/login"))
    tab.fill("#user", "loadbalancer")
    tab.fill("#password", password)
    tab.click("main button, form button.primary")
    tab.wait_for_url(url(name, "/lbadmin/"))


def add_peer(tab: Any, password: str) -> None:
    tab.goto(url("a"))
    assert tab.input_value("#local") == BOXES["a"], "the address by which the browser came"
    tab.fill("#peer", BOXES["b"])
    tab.fill("#password", password)
    tab.click("text=Add new node")


def text_of(tab: Any) -> str:
    """Of the page as it is now."""
    tab.goto(url("a"))
    return str(tab.inner_text("main"))


def add_and_remove_a_path(tab: Any) -> None:
    tab.goto(url("a"))
    tab.fill("#local", CABLE["a"])
    tab.fill("#peer", "the cable")
    tab.click("text=Add path")
    tab.wait_for_selector("text=is not an IP address")
    assert tab.input_value("#local") == CABLE["a"], "nothing typed is lost"
    tab.fill("#peer", CABLE["b"])
    tab.click("text=Add path")
    tab.wait_for_selector(f"text=The heartbeat path {CABLE['a']} - {CABLE['b']} is added on this box.")
    row = tab.locator("tr", has_text=CABLE["a"])
    assert "silent" in row.inner_text(), "the peer does not know of it yet"
    assert not axe_findings(tab)
    row.get_by_role("button", name="Remove").click()
    tab.wait_for_selector("text=is removed on this box")
    assert tab.locator("tr", has_text=CABLE["a"]).count() == 0


def take_picture(tab: Any, name: str) -> None:
    """For docs/screenshots, with LBFAST_SCREENSHOTS=DIRECTORY, as test_pages makes those of a single box."""
    if folder := os.environ.get("LBFAST_SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def check_what_a_pair_leaves(boxes: Lab, tab: Any) -> None:
    """The other box leaves the addresses where they are, says so, and does not get them while somebody has them."""
    stay = f"text=stay with the former peer, {BOXES['b']}"
    tab.goto(url("a", "/lbadmin/"))
    tab.wait_for_selector(stay)
    tab.goto(url("a"))
    tab.wait_for_selector(stay)
    assert not axe_findings(tab)
    tab.click("button:has-text('Take over')")
    tab.wait_for_selector("text=the service addresses cannot be raised")
    assert not boxes.holds("a")


def test_the_guides_appendix_from_add_new_node_to_break_clustered_pair(boxes: Lab, page: Any) -> None:
    tab = page
    tab.goto(url("a"))
    assert not axe_findings(tab)
    wait_for(lambda: _answers(boxes), 30, "the peer to answer pairings: it has a web user with a password")

    add_peer(tab, "a wrong password")
    tab.wait_for_selector("text=the password is wrong; it is the one of the user loadbalancer there")
    assert tab.input_value("#peer") == BOXES["b"], "nothing typed is lost"
    assert tab.input_value("#password") == "", "but the password"
    assert boxes.boxes["a"].json("ha", "status")["role"] == "standalone"

    web = boxes.boxes["b"].child("web")
    os.kill(web, signal.SIGSTOP)  # whether it runs is not asked
    add_peer(tab, OTHER)
    tab.wait_for_selector("text=Break Clustered Pair")
    os.kill(web, signal.SIGCONT)
    assert "primary" in tab.inner_text("h1")
    boxes.wait_ready()
    words = (BOXES["a"], BOXES["b"], "State: Active", "State: Passive", "This box has the addresses")
    wait_for(lambda: all(word in text_of(tab) for word in words), 20, f"the page to show {words}")
    assert tab.locator(".box").all_inner_texts()[0].split("\n")[0].upper() == "LBFAST PRIMARY"
    assert not axe_findings(tab)
    take_picture(tab, "ha-pair")

    add_and_remove_a_path(tab)

    # The overview: one verdict, and what it stands on.
    tab.goto(url("a", "/lbadmin/"))
    tab.wait_for_selector("text=Ready to take over: yes")
    panel = tab.inner_text("section.pair")
    assert "3 / 3" in panel
    assert "heard" in panel
    assert not axe_findings(tab)
    take_picture(tab, "overview-pair")

    # The secondary says where to go, on every page.
    login(tab, "b", OTHER)
    tab.goto(url("b", "/lbadmin/cluster/services"))
    assert f"Configure on the Primary, {BOXES['a']}" in tab.inner_text("main")
    boxes.wait_ready()
    tab.goto(url("b"))
    tab.fill("#takeover-reason", "drill")
    tab.click("button:has-text('Take over')")
    tab.wait_for_selector("text=This box is active now")
    boxes.wait_states(a="passive", b="active")
    wait_for(lambda: boxes.holds("b") and not boxes.holds("a"), 10, "the address over there")

    tab.goto(url("b"))
    tab.click("button:has-text('Break Clustered Pair')")
    tab.wait_for_selector("text=It was told.")
    assert "Create a Clustered Pair" in tab.inner_text("main")
    gone = [boxes.directory / name / "state" / "pair.json" for name in BOXES]
    wait_for(lambda: not any(it.exists() for it in gone), 10, "both to forget")
    assert boxes.holds("b")
    check_what_a_pair_leaves(boxes, tab)


def _answers(boxes: Lab) -> bool:
    words = (*boxes.inside("c"), "bash", "-c", f": > /dev/tcp/{BOXES['b']}/7778")
    return subprocess.run(words, check=False, capture_output=True).returncode == 0
