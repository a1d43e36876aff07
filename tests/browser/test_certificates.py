"""A certificate that is about to end: said on the overview and where it belongs, of real servers and of our own."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme
from harness import free_port, real_server, virtual_service
from servers import https_server
from test_guide import login
from waiting import wait_for
from web_world import HOME, web_lbfast

NAMES = ("localhost", "127.0.0.1")


def ends_at(ca: trustme.CA, moment: datetime) -> trustme.LeafCert:
    return ca.issue_cert(*NAMES, not_after=moment)


def test_a_real_server_whose_certificate_ends_soon_is_told(tab: Any, ca: trustme.CA) -> None:
    """In the overview and on its own page, with the date; it goes on serving."""
    end = datetime.now(UTC) + timedelta(days=5, hours=12)
    with https_server("old", ca, certificate=ends_at(ca, end)) as old, https_server("new", ca) as new:
        reals = [real_server("Old", old.port), real_server("New", new.port)]
        check = {"type": "tls", "interval": "500ms", "timeout": "400ms"}
        with web_lbfast([virtual_service(free_port(), reals, health_check=check)]) as web:
            wait_for(lambda: web.lb.call("certificates")["real_servers"], 20, "probes to have seen the certificates")
            login(tab, web)
            note = tab.locator(
                "p.note.warn", has_text=re.compile("Symphony: Old: certificate .* expires in less than 7 days")
            )
            note.wait_for()
            tab.locator("tr.rs", has_text="Old").locator(".state.up").wait_for()  # it still serves
            note.get_by_role("link").click()
            tab.get_by_role("heading", name="Old").wait_for()
            tab.locator("p.note.warn", has_text="expires in less than 7 days").wait_for()
            shown = tab.locator("section.card", has_text="Its certificate, as the probe saw it")
            assert f"{end.astimezone():%Y-%m-%d}" in shown.inner_text()
            assert "Not after" in shown.inner_text()


def test_an_ended_certificate_is_more_than_a_warning(tab: Any, ca: trustme.CA) -> None:
    ended = ends_at(ca, datetime.now(UTC) - timedelta(days=1))
    with https_server("one", ca, certificate=ended) as server:
        check = {"type": "tls", "interval": "500ms", "timeout": "400ms"}
        services = [virtual_service(free_port(), [real_server("Over", server.port)], health_check=check)]
        with web_lbfast(services) as web:
            wait_for(lambda: web.lb.call("certificates")["real_servers"], 20, "a probe to have seen the certificate")
            login(tab, web)
            tab.locator(
                "p.note.bad", has_text=re.compile("Symphony: Over: certificate .* has expired 1 days ago")
            ).wait_for()


def test_the_own_certificate_is_told_before_it_ends(tab: Any, ca: trustme.CA) -> None:
    """One that is uploaded with ten days left is taken, and every overview says so."""
    with web_lbfast() as web:
        made = ends_at(ca, datetime.now(UTC) + timedelta(days=10, hours=12))
        pem = web.lb.directory / "own.pem"
        pem.write_bytes(made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes())
        login(tab, web)
        tab.goto(web.url + "/lbadmin/local/certificate")
        assert tab.locator("main .note").count() == 0, "our own lasts for years"
        tab.get_by_label("Certificate and chain, PEM").set_input_files(pem)
        tab.get_by_role("button", name="Check and use").click()
        said = "The certificate of this web interface ends in 10 days"
        tab.locator("p.note.warn", has_text=said).wait_for()
        tab.goto(web.url + HOME)
        tab.locator("p.note.warn", has_text=said).get_by_role("link").click()
        tab.get_by_role("heading", name="Certificate").wait_for()
        tab.get_by_role("button", name="Go back to the one before").click()
        tab.locator("p.note.good").wait_for()
        assert tab.locator("p.note.warn").count() == 0
