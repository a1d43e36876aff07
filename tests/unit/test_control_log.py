"""The log writer and its targets, on real files, sockets and a full device."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_for

from lbfast.control import log
from lbfast.control.log import LogWriter, render_line
from lbfast.control.log_targets import (
    FileTarget,
    JournalTarget,
    NoTarget,
    StdoutTarget,
    SyslogTarget,
    open_target,
)

NASTY = 'x"\n\r\t\\\x00\x1b[31m\x7f\x85\u2028\u202e\u200fümlaut <script> \ud800 😀'


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def writer(tmp_path: Path, reports: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[LogWriter]:
    monkeypatch.setattr(log, "RETRY_S", 0.01)
    writer = LogWriter(FileTarget(tmp_path / "lb.log"), reports.append)
    yield writer
    writer.close()


def test_records_arrive_in_order(writer: LogWriter, tmp_path: Path) -> None:
    for number in range(3000):
        writer.submit({"n": number})
    writer.close()
    assert [line["n"] for line in lines_of(tmp_path / "lb.log")] == list(range(3000))
    assert (tmp_path / "lb.log").stat().st_mode & 0o777 == 0o640
    assert writer.lost == 0


def test_appends_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "lb.log").write_text('{"old":1}\n')
    target = FileTarget(tmp_path / "lb.log")
    assert target.write([({}, b'{"new":1}')]) == 1
    target.close()
    assert lines_of(tmp_path / "lb.log") == [{"old": 1}, {"new": 1}]


def test_a_line_says_what_it_says(tmp_path: Path) -> None:
    line = render_line({"service": NASTY})
    assert json.loads(line) == {"service": NASTY}
    shown = line.decode()
    assert "ümlaut <script>" in shown
    assert "😀" in shown
    assert all(character.isprintable() for character in shown)


@given(st.text())
def test_no_text_breaks_a_line(text: str) -> None:
    line = render_line({"t": text})
    assert len(line.splitlines()) == 1
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["t"] == text


@pytest.mark.parametrize("how", ["rename", "delete", "signal"])
def test_logrotate(writer: LogWriter, tmp_path: Path, how: str) -> None:
    path = tmp_path / "lb.log"
    writer.submit({"n": 1})
    wait_for(lambda: lines_of(path) == [{"n": 1}])
    old = tmp_path / "lb.log.1"
    os.link(path, old)
    if how == "rename":
        os.rename(path, tmp_path / "lb.log.2")
    else:
        os.unlink(path)
    if how == "signal":
        writer.reopen()
    writer.submit({"n": 2})
    wait_for(lambda: lines_of(path) == [{"n": 2}])
    assert lines_of(old) == [{"n": 1}]


def test_copytruncate(writer: LogWriter, tmp_path: Path) -> None:
    path = tmp_path / "lb.log"
    writer.submit({"n": 1})
    wait_for(lambda: lines_of(path) == [{"n": 1}])
    os.truncate(path, 0)
    writer.submit({"n": 2})
    wait_for(lambda: lines_of(path) == [{"n": 2}])


def test_a_full_disk_is_reported_once_and_so_is_the_end_of_it(
    tmp_path: Path, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "RETRY_S", 0.01)
    path = tmp_path / "lb.log"
    path.symlink_to("/dev/full")
    writer = LogWriter(FileTarget(path), reports.append)
    for number in range(5):
        writer.submit({"n": number})
        wait_for(lambda number=number: writer.lost == number + 1)  # type: ignore[misc]
    path.unlink()
    writer.submit({"n": 5})
    wait_for(lambda: lines_of(path) == [{"n": 5}])
    writer.close()
    assert reports == [
        f"cannot write the log to {path}: No space left on device; traffic goes on, records are lost",
        f"the log is written to {path} again; 5 records were lost",
    ]


def test_a_torn_line_is_closed_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = FileTarget(tmp_path / "lb.log")
    real_write = os.write
    room = [7]

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real_write(fd, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr("lbfast.control.log_targets.os.write", write)
    with pytest.raises(OSError, match="No space"):
        target.write([({}, b'{"n":1,"more":"text"}')])
    room[0] = 10_000
    assert target.write([({}, b'{"n":2}')]) == 1
    target.close()
    assert (tmp_path / "lb.log").read_bytes() == b'{"n":1,\n{"n":2}\n'


def test_a_fifo_that_nobody_reads_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lb.log")
    with pytest.raises(OSError, match="No such device"):
        FileTarget(tmp_path / "lb.log").write([({}, b"{}")])


def test_a_stuck_reader_of_stdout_holds_up_nobody(reports: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FLUSH_S", 0.05)
    receiving, sending = os.pipe()
    writer = LogWriter(StdoutTarget(sending), reports.append)
    for number in range(log.QUEUE + 3000):
        writer.submit({"n": number, "padding": "x" * 50})
    assert writer.lost > 0
    writer.close()  # gives up after FLUSH_S
    os.close(receiving)  # now the write fails and the thread ends
    wait_for(lambda: reports, what="the failure to be told")
    wait_for(lambda: not writer._thread.is_alive(), what="the thread to end")
    os.close(sending)


def test_stdout_writes_whole_lines(capfd: pytest.CaptureFixture[str]) -> None:
    StdoutTarget(1).write([({}, b'{"n":1}'), ({}, b'{"n":2}')])
    assert capfd.readouterr().out == '{"n":1}\n{"n":2}\n'


def datagram_server(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    server.settimeout(5)
    return server


def journal_fields(data: bytes) -> dict[str, bytes]:
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            key, _, value = line.partition(b"=")
            data = rest
        else:
            key, size = line, struct.unpack("<Q", rest[:8])[0]
            value, data = rest[8 : 8 + size], rest[9 + size :]
        fields[key.decode()] = value
    return fields


def test_journald(tmp_path: Path) -> None:
    with datagram_server(tmp_path / "journal") as server:
        target = JournalTarget(str(tmp_path / "journal"))
        record = {"event": "health", "service": "two\nPRIORITY=0", "client": "10.1.2.3"}
        assert target.write([(record, render_line(record))]) == 1
        fields = journal_fields(server.recv(65_536))
        target.close()
    assert fields["LBFAST_SERVICE"] == b"two\nPRIORITY=0"
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == (b"4", b"lbfast")
    assert json.loads(fields["MESSAGE"]) == record


def test_syslog_is_rfc_5424_and_finds_a_restarted_receiver(tmp_path: Path) -> None:
    record = {"event": "open", "at": "2026-03-01T08:00:00.000+00:00", "client": "10.1.2.3"}
    target = SyslogTarget(str(tmp_path / "log"))
    with pytest.raises(OSError, match="No such file"):
        target.write([(record, b"{}")])
    for _ in range(2):
        with datagram_server(tmp_path / "log") as server:
            try:
                target.write([(record, render_line(record))])
            except ConnectionRefusedError:
                target.write([(record, render_line(record))])
            head, _, message = server.recv(65_536).partition(b" - \xef\xbb\xbf")
        os.unlink(tmp_path / "log")
        assert head.decode() == f"<30>1 {record['at']} {socket.gethostname()} lbfast {os.getpid()} open"
        assert json.loads(message) == record
    target.close()


def test_syslog_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        target = SyslogTarget(server.getsockname())
        target.write([({"event": "admin"}, b"{}")])
        assert server.recv(65_536).startswith(b"<29>1 ")
        target.close()


def test_open_target() -> None:
    assert isinstance(open_target("none"), NoTarget)
    assert isinstance(open_target("file", "/var/log/lb.log"), FileTarget)
    with pytest.raises(ValueError, match="names no place"):
        open_target("file")
