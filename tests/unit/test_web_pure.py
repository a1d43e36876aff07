"""The pure parts of the pages: form fields, words, graphs, drain plans, the menu, certificates."""

from __future__ import annotations

import ssl
import tomllib
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from lbfast.model.service import RealServer, VirtualService
from lbfast.model.visible import clean
from lbfast.web.certificate_notes import certificate_notes
from lbfast.web.charts import band, draw
from lbfast.web.drain_plan import plan_drain
from lbfast.web.fields import changed_settings, form_of, posted_values, typed_values
from lbfast.web.icons import icon
from lbfast.web.live import change_of
from lbfast.web.menu import MENU, menu_for
from lbfast.web.pages_probe import split_place
from lbfast.web.spans import Spans
from lbfast.web.sparkline import spark_path
from lbfast.web.tls import Certificate, CertificateFault, check_pem, make_context, make_self_signed
from lbfast.web.words import service_state, slug, span

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SERVICE = tomllib.loads("""
label = "Symphony"
address = "192.0.2.1"
ports = "443"
allow = ["10.0.0.0/8"]
health_check = { type = "https", rise = 3 }
""")

# --- forms ----------------------------------------------------------------------------------------


def test_every_key_of_the_model_has_a_field() -> None:
    """A key that is added to the model must not be missing in the browser."""
    for kind, model in (("service", VirtualService), ("real", RealServer)):
        tops = {field.path[0] for field in form_of(kind).all}
        wanted = {field.alias or name for name, field in model.model_fields.items()} - {"id", "real_server"}
        assert tops == wanted
        assert all(field.help for field in form_of(kind).all)


def test_the_first_fields_are_the_guides() -> None:
    titles = [field.title for field in form_of("service").basic]
    assert titles == ["Label", "Virtual Service IP Address", "Ports", "Layer 7 Protocol"]
    titles = [field.title for field in form_of("real").basic]
    assert titles == ["Label", "Real Server IP Address", "Real Server Port", "Weight"]


def as_posted(values: dict[str, str], kind: str = "service") -> dict[str, str]:
    """What a browser sends: a switch that is off is not there."""
    switches = {field.name for field in form_of(kind).all if field.kind == "switch"}
    return {name: value for name, value in values.items() if name not in switches or value == "yes"}


def test_a_form_that_nobody_touched_changes_nothing() -> None:
    form = form_of("service")
    assert changed_settings(form, posted_values(form, as_posted(typed_values(form, SERVICE))), SERVICE) == {}


def test_only_what_was_touched_is_written() -> None:
    form = form_of("service")
    typed = typed_values(form, SERVICE)
    typed |= {
        "ports": "80,443",
        "retries": "7",
        "redispatch": "no",
        "health_check.rise": "",
        "allow": "10.1.0.0/16, ::/0",
    }
    assert changed_settings(form, posted_values(form, as_posted(typed)), SERVICE) == {
        "ports": "80,443",
        "retries": 7,
        "redispatch": False,
        "health_check": {"rise": None},
        "allow": ["10.1.0.0/16", "::/0"],
    }


@given(st.dictionaries(st.sampled_from([field.name for field in form_of("service").all]), st.text(max_size=40)))
def test_whatever_is_typed_makes_settings(typed: dict[str, str]) -> None:
    form = form_of("service")
    values = posted_values(form, as_posted(typed_values(form, SERVICE)) | typed)
    settings = changed_settings(form, values, SERVICE)
    assert set(settings) <= {field.path[0] for field in form.all}


# --- words ----------------------------------------------------------------------------------------


@given(st.text())
def test_shown_text_hides_nothing_and_moves_nothing(text: str) -> None:
    assert not {unicodedata.category(char) for char in clean(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(), st.text())
def test_slugs_differ_when_labels_do(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) is (one == other)


def test_a_service_whose_servers_were_taken_out_on_purpose_is_no_problem() -> None:
    def reals(*states: str) -> list[dict[str, str]]:
        return [{"state": state} for state in states]

    assert service_state({"state": "degraded", "real_servers": reals("up", "drain")}) == "eased"
    assert service_state({"state": "degraded", "real_servers": reals("up", "drain", "down")}) == "degraded"
    assert service_state({"state": "up", "real_servers": reals("up")}) == "up"


def test_spans() -> None:
    assert [span(it) for it in (0.25, 7.5, 65, 3_725, 90_000)] == [
        "250 ms",
        "7.5 s",
        "1 min 5 s",
        "1 h 2 min",
        "1 d 1 h",
    ]


# --- graphs ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e12), max_size=200))
def test_sparklines_stay_in_their_box(points: list[float]) -> None:
    for pair in spark_path(points).replace("M", "").split("L"):
        if pair:
            x, y = map(float, pair.split())
            assert -0.1 <= x <= 100.1
            assert 0 <= y <= 20


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e15)), max_size=100))
def test_charts_stay_in_their_box_and_keep_gaps(values: list[float | None]) -> None:
    points = [(float(at), value) for at, value in enumerate(values)]
    chart = draw("x", "connections", 0, max(len(values), 1), [("x", points)])
    path = chart.curves[0][1]
    pieces = sum(value is not None and (place == 0 or values[place - 1] is None) for place, value in enumerate(values))
    assert path.count("M") == pieces
    assert chart.is_empty is (pieces == 0)
    for pair in path.replace("M", " ").replace("L", " ").split():
        assert -0.1 <= float(pair) <= 760.1


def test_the_band_of_health() -> None:
    chart = band("Health", 0, 100, [(0, 1.0), (10, 1.0), (20, 0.0), (30, None), (40, 1.0)], 10)
    assert [kind for _, _, kind in chart.ups] == ["bar-good", "bar-bad", "bar-none", "bar-good"]


# --- drain plans ----------------------------------------------------------------------------------


def server(**settings: Any) -> dict[str, Any]:
    return {"label": "one", "state": "up", "admin": "online", "weight": 100, "reason": "connected"} | settings


def test_drain_plans() -> None:
    other = server(label="two")
    entry = {"expires_in": 600.0, "connections": 0, "pinned": False}
    held = {"expires_in": None, "connections": 1, "pinned": True}
    busy = {"idle": 1.0}
    quiet = {"idle": 3_600.0}
    plan = plan_drain(server(), [other], [entry, held], [busy, quiet])
    assert (plan.verdict, plan.connections, plan.quiet, plan.pinned, plan.expire_within) == ("wait", 2, 1, 1, 600.0)
    assert plan.takers == ("two",)
    assert plan_drain(server(), [], [], [busy]).verdict == "alone"
    assert plan_drain(server(), [server(label="two", state="down")], [entry], []).verdict == "alone"
    assert plan_drain(server(state="halt", admin="halt"), [other], [entry], []).is_safe
    assert plan_drain(server(), [other], [], []).is_safe


# --- menu and icons -------------------------------------------------------------------------------


def test_the_menu_shows_what_a_role_may() -> None:
    assert [it.title for it in menu_for("configure", "/lbadmin/")] == [entry.title for entry in MENU]
    assert "Local Configuration" not in [it.title for it in menu_for("operate", "/lbadmin/")]
    here = [it for it in menu_for("configure", "/lbadmin/cluster/services/new") if it.is_open]
    assert [it.title for it in here] == ["Cluster Configuration"]
    assert [part.title for part in here[0].parts if part.is_here] == ["Layer 7 – Virtual Services"]


def test_every_icon_of_the_menu_is_drawn() -> None:
    assert all('d=""' not in icon(entry.icon) for entry in MENU)
    shapes = {icon(state) for state in ("up", "degraded", "eased", "down", "checking", "drain", "drained", "halt")}
    assert len(shapes) == 8, "states differ in shape"


# --- certificates ---------------------------------------------------------------------------------


def pem_of(ca: trustme.CA, name: str = "symphony.example", **settings: Any) -> tuple[bytes, bytes]:
    made = ca.issue_cert(name, **settings)
    return b"".join(part.bytes() for part in made.cert_chain_pems), made.private_key_pem.bytes()


def test_a_self_signed_certificate_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "own.pem"
    path.write_bytes(make_self_signed(["localhost", "127.0.0.1", "::1"]))
    assert make_context(path, None).minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_certificate_with_its_key_is_taken(ca: trustme.CA, tmp_path: Path) -> None:
    chain, key = pem_of(ca)
    now = datetime.now(UTC)
    path = tmp_path / "up.pem"
    path.write_bytes(check_pem(chain, key, now))
    make_context(path, None)
    assert check_pem(key + chain, b"", now), "both in one file"


def test_certificates_that_do_not_fit(ca: trustme.CA) -> None:
    chain, key = pem_of(ca)
    _, other = pem_of(ca, "other.example")
    expired, its_key = pem_of(ca, not_after=datetime.now(UTC) - timedelta(days=1))
    foreign = trustme.CA().cert_pem.bytes()
    now = datetime.now(UTC)
    cases = (
        (chain, other, "does not belong"),
        (expired, its_key, "expired"),
        (chain, b"nonsense", "no usable private key"),
        (b"nonsense", key, "no PEM file"),
        (chain + foreign, key, "was not issued by"),
        (b"x" * 300_000, key, "more than"),
    )
    for certificates, private, wanted in cases:
        with pytest.raises(CertificateFault) as found:
            check_pem(certificates, private, now)
        assert wanted in str(found.value)
    with pytest.raises(CertificateFault, match="valid only from"):
        check_pem(chain, key, datetime(1999, 1, 1, tzinfo=UTC))


def test_spans_judge_each_field() -> None:
    spans = Spans({"deadline": "30m", "stagger": "1500ms", "cut_after": "25d", "other": "x"})
    assert (spans.seconds("deadline"), spans.seconds("stagger")) == (1_800, None)
    assert set(spans.faults) == {"stagger", "cut_after"}
    assert '"25d"' in spans.faults["cut_after"]
    assert "24d" in spans.faults["cut_after"]
    assert Spans({"deadline": " "}).faults == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (None, None)),
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", None)),
    ],
)
def test_places_to_test_against(text: str, found: tuple[str | None, int | None]) -> None:
    assert split_place(text) == found


def test_a_port_that_is_none_is_refused() -> None:
    for text in ("10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:65536"):
        with pytest.raises(ValueError, match="expected 1 to 65535"):
            split_place(text)


def own_certificate(left: timedelta) -> Certificate:
    return Certificate(
        Path("c.pem"), "CN=a", "CN=a", (), NOW - timedelta(days=300), NOW + left, "AB", is_self_signed=True
    )


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(days=31), ""),
        (timedelta(days=30), "ends in 30 days"),
        (timedelta(days=1, hours=3), "ends in 1 day,"),
        (timedelta(hours=3), "ends in 1 day,"),
        (timedelta(seconds=-1), "ended on"),
    ],
)
def test_the_own_certificate_is_warned_of(left: timedelta, said: str) -> None:
    notes = certificate_notes(own_certificate(left), [], NOW)
    assert [said in note.text for note in notes] == [True] * bool(said)
    assert [note.is_over for note in notes] == [left <= timedelta(0)] * bool(said)


def test_certificates_of_real_servers_are_warned_of_and_counted() -> None:
    found = [
        {"service": "S&P", "real": f"R{n}", "warnings": ["certificate CN=a has expired 3 days ago"]} for n in range(7)
    ]
    notes = certificate_notes(None, found, NOW)
    assert notes[0].text == "S&P: R0: certificate CN=a has expired 3 days ago"
    assert (notes[0].is_over, notes[0].href) == (True, "/lbadmin/cluster/health?service=S%26P&real=R0")
    assert len(notes) == 6
    assert "2 more" in notes[-1].text


def test_a_change_has_only_the_servers_that_changed() -> None:
    figures = {"connections": 0, "clients": None}
    one, two = server(label="one", **figures), server(label="two", **figures)
    reals = [one, two]
    before = {"label": "S", "state": "up", "connections": 1, "persistence_entries": None, "real_servers": reals}
    halted = {**two, "state": "halt", "admin": "halt"}
    after = {**before, "state": "degraded", "real_servers": [one, halted]}
    change = change_of(before, after)
    assert (change["state"], change["taken"]) == ("eased", True)
    assert [it["label"] for it in change["reals"]] == ["two"]
    assert [it["label"] for it in change_of(None, after)["reals"]] == ["one", "two"]
