"""Text, numbers, labels and event lines of the command line: pure functions."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfast.cli.clean import clean, duration, encodable, plural, size
from lbfast.cli.event_lines import event_line
from lbfast.cli.labels import nearest, unknown


@given(st.text())
def test_clean_leaves_nothing_that_moves_reorders_or_hides(text):
    assert not {unicodedata.category(char) for char in clean(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_clean_keeps_what_can_be_seen(text):
    assert clean(text) == text


@given(st.text(), st.sampled_from(["ascii", "utf-8", "latin-1", None]))
def test_encodable_always_can_be_encoded(text, encoding):
    encodable(text, encoding).encode(encoding or "ascii")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9949, "9.9 kB"), (9960, "10 kB"), (999_600, "1.0 MB"),
     (1_234_567, "1.2 MB"), (5e12, "5.0 TB"), (4e18, "4000 PB")],
)  # fmt: skip
def test_size(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.012, "12 ms"), (0.9996, "1 s"), (2.5, "2.5 s"), (59.96, "1 min"), (250, "4 min 10 s"),
     (3600, "1 h"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h"), (-1, "0 ms")],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_plural():
    assert [plural(1, "entry", "entries"), plural(2, "entry", "entries"), plural(0, "client")] == [
        "1 entry",
        "2 entries",
        "0 clients",
    ]


def test_unknown_labels():
    labels = ["Symphony Server 1", "Symphony Server 2", "PACS"]
    listed = '"Symphony Server 1", "Symphony Server 2", "PACS"'
    assert nearest("SYMPHONY SERVER 2", labels) == "Symphony Server 2"
    assert nearest("zzz", labels) is None
    assert unknown("real server", "pacs1", labels, ' in "X"') == (
        f'no real server "pacs1" in "X"; did you mean "PACS"? There are: {listed}'
    )
    assert unknown("virtual service", "zzz", ["A"]) == 'no virtual service "zzz"; there are: "A"'
    assert unknown("virtual service", "zzz", []) == 'no virtual service "zzz"; there is none'
    assert unknown("real server", "zzz", [f"R{n}" for n in range(30)]).endswith('"R19" and 10 more')


AT = "2026-03-01T10:00:00+00:00"
WAY = {"at": AT, "service": "Symphony", "real": "Symphony Server 2", "client": "10.1.2.3", "port": 443}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"event": "open", "reason": "table", "attempts": 1}, "open   10.1.2.3 -> Symphony Server 2  (table)"),
        (
            {"event": "open", "reason": "redispatch", "attempts": 3},
            "open   10.1.2.3 -> Symphony Server 2  (redispatch, attempt 3)",
        ),
        (
            {
                "event": "close",
                "bytes_in": 512,
                "bytes_out": 1234,
                "duration_ms": 3100,
                "ended": "close",
                "by": "client",
            },
            "close  10.1.2.3 -> Symphony Server 2  (512 B in, 1.2 kB out in 3.1 s, close by client)",
        ),
        (
            {"event": "close", "bytes_in": 0, "bytes_out": 0, "duration_ms": 5, "ended": "reset", "error": "reset"},
            "close  10.1.2.3 -> Symphony Server 2  (0 B in, 0 B out in 5 ms, reset, reset)",
        ),
        ({"event": "refuse", "ended": "no_server", "real": None}, "refuse 10.1.2.3 -> port 443  (no_server)"),
        (
            {"event": "refuse", "ended": "connect", "error": "Connection refused", "attempts": 4},
            "refuse 10.1.2.3 -> port 443  (connect, Connection refused, 4 attempts)",
        ),
        (
            {"event": "connect_fail", "error": "Connection refused", "attempts": 1},
            "failed 10.1.2.3 -> Symphony Server 2  (attempt 1, Connection refused)",
        ),
        ({"event": "health", "message": "down: refused"}, "health Symphony Server 2: down: refused"),
        (
            {"event": "health", "message": "Symphony: Symphony Server 2 is up"},
            "health Symphony: Symphony Server 2 is up",
        ),
        ({"event": "process", "real": None, "message": "worker 1 died"}, "process worker 1 died"),
        ({"event": "something_new", "message": "x\ny"}, "something_new Symphony Server 2: x\\x0ay"),
    ],
)
def test_event_lines(event, text, monkeypatch):
    assert event_line(WAY | event, with_service=False).split(" ", 1)[1] == text


def test_event_line_with_the_service_and_without_a_time():
    assert event_line(WAY | {"event": "open", "reason": "new", "at": None}) == (
        "--:--:-- open   10.1.2.3 -> Symphony / Symphony Server 2  (new)"
    )
