"""The places a log can go to: a file, standard output, journald, syslog, or nowhere."""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from lbfast.control.log import LogTarget
from lbfast.control.peer import user_name
from lbfast.control.records import Record

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
DEV_LOG: Final = "/dev/log"
IDENTIFIER: Final = "lbfast"
FACILITY_DAEMON: Final = 3
SEND_TIMEOUT: Final = 1.0
MAX_DATAGRAM: Final = 60_000

_INFO, _NOTICE, _WARNING = 6, 5, 4
_SEVERITY = {"admin": _NOTICE, "health": _WARNING, "process": _WARNING, "connect_fail": _NOTICE, "refuse": _NOTICE}
_JOURNAL_FIELDS = ("event", "service", "real", "client", "id", "reason", "ended")


def severity_of(record: Record) -> int:
    """The syslog severity of a record."""
    return _SEVERITY.get(str(record.get("event")), _INFO)


class NoTarget:
    """Records go nowhere; `events` shows them all the same."""

    name = "nowhere"

    def write(self, records: list[tuple[Record, bytes]]) -> int:
        return len(records)

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


class FileTarget:
    """Appends to a file, follows it when logrotate moves it away, never leaves two records in one line."""

    def __init__(self, path: Path | str) -> None:
        self.name = os.fspath(path)
        self._fd = -1
        self._torn = False  # the last write ended inside a line

    def write(self, records: list[tuple[Record, bytes]]) -> int:
        self._follow_rename()
        if self._fd < 0:
            self.reopen()
        for count, (_, line) in enumerate(records):
            try:
                self._write_line(line)
            except OSError:
                if count == 0:
                    raise
                return count
        return len(records)

    def _write_line(self, line: bytes) -> None:
        data = (b"\n" if self._torn else b"") + line + b"\n"
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        finally:
            if done:
                self._torn = data[done - 1 : done] != b"\n"

    def _follow_rename(self) -> None:
        if self._fd < 0:
            return
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self.name)
        except FileNotFoundError:
            self._replace_moved(is_kept=ours.st_nlink > 0)
            return
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            self.close()

    def _replace_moved(self, is_kept: bool) -> None:
        """Make the file anew.  Where that is not allowed logrotate does it in a moment: go on with the moved one."""
        moved, self._fd = self._fd, -1
        try:
            self.reopen()
        except PermissionError:
            self._fd = moved
            if not is_kept:  # it was removed: what is written there is lost
                raise
        else:
            os.close(moved)
            self._torn = False

    def reopen(self) -> None:
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        self._fd = os.open(self.name, flags, 0o640)  # O_NONBLOCK: a FIFO without a reader is an error, not a wait

    def close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1
            self._torn = False


class StdoutTarget:
    """Standard output, written directly: no buffer of ours can be torn by a kill."""

    name = "standard output"

    def __init__(self, fd: int | None = None) -> None:
        self._fd = sys.stdout.fileno() if fd is None else fd

    def write(self, records: list[tuple[Record, bytes]]) -> int:
        data = memoryview(b"".join(line + b"\n" for _, line in records))
        while data:
            data = data[os.write(self._fd, data) :]
        return len(records)

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Datagrams:
    """One datagram per record; a new socket after every failure, so that a restarted receiver is found again."""

    def __init__(self, name: str, family: int, address: str | tuple[str, int]) -> None:
        self.name = name
        self._family = family
        self._address = address
        self._sock: socket.socket | None = None

    def write(self, records: list[tuple[Record, bytes]]) -> int:
        for count, (record, line) in enumerate(records):
            try:
                self._send(self.frame(record, line))
            except OSError:
                self.close()
                if count == 0:
                    raise
                return count
        return len(records)

    def frame(self, record: Record, line: bytes) -> bytes:
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        if self._sock is None:
            self._sock = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._sock.settimeout(SEND_TIMEOUT)
            self._sock.connect(self._address)
        self._sock.send(data)

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class JournalTarget(_Datagrams):
    """journald in its own protocol: the JSON line as message, the main keys as fields to search by."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        super().__init__(f"journald ({path})", socket.AF_UNIX, path)

    def frame(self, record: Record, line: bytes) -> bytes:
        fields = {"MESSAGE": line, "PRIORITY": b"%d" % severity_of(record), "SYSLOG_IDENTIFIER": IDENTIFIER.encode()}
        for key in _JOURNAL_FIELDS:
            if key in record:
                fields[f"LBFAST_{key.upper()}"] = str(record[key]).encode("utf-8", errors="backslashreplace")
        return b"".join(_journal_field(key, value) for key, value in fields.items())[:MAX_DATAGRAM]


def _journal_field(key: str, value: bytes) -> bytes:
    """``KEY=value``, or the form with a length when the value has a newline and could forge a field."""
    if b"\n" in value:
        return key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return key.encode() + b"=" + value + b"\n"


class SyslogTarget(_Datagrams):
    """RFC 5424, to the local /dev/log or to a server over UDP."""

    def __init__(self, address: str | tuple[str, int] = DEV_LOG) -> None:
        if isinstance(address, str):
            super().__init__(f"syslog ({address})", socket.AF_UNIX, address)
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            super().__init__(f"syslog ({address[0]} port {address[1]}, UDP)", family, address)
        self._host = socket.gethostname() or "-"

    def frame(self, record: Record, line: bytes) -> bytes:
        priority = FACILITY_DAEMON * 8 + severity_of(record)
        kind = str(record.get("event", "-"))
        head = f"<{priority}>1 {record.get('at', '-')} {self._host} {IDENTIFIER} {os.getpid()} {kind} - "
        return (head.encode("ascii", errors="replace") + b"\xef\xbb\xbf" + line)[:MAX_DATAGRAM]


def why_unwritable(file: str) -> str | None:
    """What would be right, when this process may not append to the file, or make it."""
    directory = os.path.dirname(file)
    who = user_name(os.geteuid())
    if os.path.exists(file):
        is_fit = os.access(file, os.W_OK, effective_ids=True)
        return None if is_fit else f"a file that {who} may write to"
    is_fit = os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK, effective_ids=True)
    return None if is_fit else f"a file that {who} may write to, or a directory where it may make one"


def open_target(target: str, file: str | None = None) -> LogTarget:
    """The target a configuration names; ValueError when it cannot be meant."""
    if target == "none":
        return NoTarget()
    if target == "stdout":
        return StdoutTarget()
    if target == "journald":
        return JournalTarget()
    if target == "syslog":
        return SyslogTarget()
    if target == "file" and file:
        return FileTarget(file)
    raise ValueError(f"log: target {target!r} with file {file!r} names no place to write to")
