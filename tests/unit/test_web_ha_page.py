"""The page of the pair: what it offers is what would be refused or carried out."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import DictLoader

from lbfast.ha.wire import Refusal
from lbfast.web.pair import judge
from lbfast.web.render import environment, sources

COUNTS = ("accepted", *(it.value for it in Refusal), "own_late", "own_late_most_ms", "peer_late", "peer_late_most_ms")


def page(**changes: Any) -> str:
    """The middle of the page, for somebody who may do everything."""
    status: dict[str, Any] = {
        "role": "secondary",
        "state": "passive",
        "ready": True,
        "reasons": [],
        "objections": [],
        "differences": [],
        "maintenance": None,
        "local": "10.0.0.2",
        "name": "b",
        "version": "1",
        "fingerprint": "22",
        "peer": {
            "address": "10.0.0.1",
            "heard": True,
            "standing": "active",
            "name": "a",
            "version": "1",
            "fingerprint": "11",
        },
        "servers": [],
        "replication": {"linked": True, "synced": True, "lag_entries": 0, "lag_ms": 0, "trouble": ""},
        "paths": [],
        "timing": {"interval_ms": 100, "dead_ms": 300, "takeover_least_ms": 250, "takeover_most_ms": 350},
        "heartbeats": dict.fromkeys(COUNTS, 0),
    }
    status |= {key: {**status[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    made = environment()
    made.loader = DictLoader({**sources(), "base.html": "{% block main %}{% endblock %}"})
    words = {"is_paired": True, "may_operate": True, "may_configure": True, "csrf": "x", "host": "b", "job": None}
    return made.get_template("ha.html").render(
        **words, pair=status, ready=judge(status), fault="", outcome=None, values={"path_local": "", "path_peer": ""}
    )


def form(html: str, action: str) -> str:
    """The form with a button of that name."""
    (found,) = [part for part in html.split("<form")[1:] if f'value="{action}"' in part]
    return found.partition("</form>")[0]


def test_a_takeover_is_forced_only_where_it_would_be_refused() -> None:
    free = page()
    assert "finds nothing against it" in free
    assert 'name="force"' not in form(free, "takeover")
    against = ["Server 1 of Symphony is reached by the active box only"]
    refused = page(ready=False, reasons=against, objections=against)
    assert f"objects: {against[0]}" in refused
    assert 'name="force"' in form(refused, "takeover")
    unheard = page(state="unknown", ready=False, reasons=["the peer is not heard"], peer={"heard": False})
    assert "this box takes over if nobody on the network has the addresses" in unheard
    assert 'name="force"' not in form(unheard, "takeover")


def test_only_further_paths_of_the_pair_itself_can_be_removed() -> None:
    ways = (("10.0.0.2", "10.0.0.1", ""), ("10.1.0.2", "10.1.0.1", ""), ("10.0.0.2", "10.0.0.1", "10.0.0.254"))
    html = page(
        paths=[{"local": local, "peer": peer, "via": via, "heard": True, "trouble": ""} for local, peer, via in ways]
    )
    assert 'name="local" value="10.1.0.2"' in form(html, "path-remove"), "the only one"
    assert html.count("by way of 10.0.0.254") == 1


@pytest.mark.parametrize(
    ("changes", "is_forced"),
    [({}, False), ({"peer": {"heard": False}}, True), ({"replication": {"linked": False, "trouble": "refused"}}, True)],
    ids=["whole", "not heard", "no link"],
)
def test_the_pair_is_broken_by_force_where_the_peer_cannot_be_told(changes: dict[str, Any], is_forced: bool) -> None:
    assert ('name="force"' in form(page(**changes), "unpair")) == is_forced


def test_how_long_a_takeover_takes_and_what_was_ignored() -> None:
    html = page(heartbeats={"forged": 17, "own_late": 4, "own_late_most_ms": 1234})
    assert "takes over after 250 to 350 ms" in html
    assert "<dt>Ignored: forged</dt><dd>17</dd>" in html
    assert "<dt>Delays of this box</dt><dd>4<br><small>at most 1234 ms</small></dd>" in html
