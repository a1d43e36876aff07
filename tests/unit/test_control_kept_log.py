"""The kept log: searched newest first, bounded on disk, indifferent to half lines; and the masking of clients."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lbfast.control import kept_log
from lbfast.control.kept_log import KeptLog, Tee, make_filter
from lbfast.control.log import render_line
from lbfast.control.log_targets import NoTarget
from lbfast.control.masking import Mask
from lbfast.control.protocol import ControlError
from lbfast.control.support import without_secrets

START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def record(number: int, **changes: Any) -> dict[str, Any]:
    at = (START + timedelta(seconds=number)).isoformat()
    return {
        "at": at,
        "event": "open",
        "service": "S",
        "real": "A",
        "client": f"10.0.0.{number % 250}",
        "id": number,
    } | changes


@pytest.fixture
def log(tmp_path: Path) -> KeptLog:
    return KeptLog(tmp_path)


def write(log: KeptLog, *records: dict[str, Any]) -> None:
    log.append([render_line(each) for each in records])


def ids(log: KeptLog, limit: int = 100, **wanted: Any) -> list[int]:
    return [found["id"] for found in log.find(make_filter(wanted), limit)["records"]]


def test_the_newest_come_first_and_every_filter_counts(log: KeptLog) -> None:
    write(log, *(record(number) for number in range(5)))
    write(log, record(5, event="health", real="B", client=None), record(6, reason="table"), record(7, ended="reset"))
    assert ids(log) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert ids(log, 3) == [7, 6, 5]
    assert ids(log, kind="health") == [5]
    assert ids(log, real="B") == [5]
    assert ids(log, reason="table") == [6]
    assert ids(log, reason="reset") == [7]
    assert ids(log, client="10.0.0.3") == [3]
    assert ids(log, client="10.0.0.0/30") == [3, 2, 1, 0]
    assert ids(log, text="ReSeT") == [7]
    assert ids(log, service="other") == []
    assert ids(log, since=record(6)["at"]) == [7, 6]
    assert ids(log, until=record(1)["at"]) == [1, 0]


@pytest.mark.parametrize("wanted", [{"kind": "x"}, {"since": "yesterday"}, {"client": "10.0.0.0/99"}])
def test_a_filter_that_is_none_is_told(wanted: dict[str, str]) -> None:
    with pytest.raises(ControlError, match=next(iter(wanted))):
        make_filter(wanted)


def test_it_is_bounded_and_goes_on_after_a_restart(
    log: KeptLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kept_log, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(kept_log, "SEGMENTS", 3)
    for number in range(200):
        if number == 100:
            log.close()
            log = KeptLog(tmp_path)
        write(log, record(number))
    assert len(log.segments()) == 3
    assert sum(path.stat().st_size for path in log.segments()) < 4 * 2_200
    found = ids(log, 1_000)
    assert found == sorted(found, reverse=True)
    assert found[0] == 199
    log.close()


def test_half_lines_and_foreign_lines_are_passed_over(log: KeptLog) -> None:
    write(log, record(1))
    log.append([b'{"at": "2026', b"[]", b"\xff\xfe", json.dumps(record(2)).encode()])
    assert ids(log) == [2, 1]
    log.close()


def test_a_target_that_fails_is_not_hidden_by_the_copy(log: KeptLog) -> None:
    class Full(NoTarget):
        def write(self, records: Any) -> int:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        Tee(Full(), log).write([(record(1), b"{}")])
    tee = Tee(NoTarget(), log)
    assert tee.write([(record(2), render_line(record(2)))]) == 1
    assert ids(log) == [2]
    tee.close()


def test_clients_are_masked_alike_and_servers_stay() -> None:
    mask = Mask(b"k", ["192.168.85.200", "2001:db8::1"])
    text = mask.text(
        "10.1.2.3 -> 192.168.85.200, 10.1.2.3:51234, [2001:db8::9]:80 at 2026-03-01T08:00:00.123 v1.2.3.4.5 2001:db8::1"
    )
    assert "10.1.2.3" not in text
    assert "2001:db8::9" not in text
    assert "192.168.85.200" in text
    assert "2001:db8::1" in text.split()[-1]
    assert "2026-03-01T08:00:00.123" in text
    first, again = text.split()[0], text.split()[3].split(":")[0]
    assert first == again
    assert Mask(b"other", []).text("10.1.2.3") != first


def test_secrets_of_a_configuration_are_taken_out() -> None:
    text = without_secrets(
        'password = "hunter2"\n  api_key="abc"\nwebhook = "https://u:p@chat/x?token=1"\nports = "443"\n'
    )
    for secret in ("hunter2", "abc", "u:p", "token=1"):
        assert secret not in text
    assert 'ports = "443"' in text
