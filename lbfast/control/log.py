"""The log writer: one thread, one bounded queue, so that neither a full disk nor a stuck reader holds up control.

Records that the queue or the target cannot take are counted.  The first failure of
a row is reported, and so is the recovery with the number of records lost between.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from lbfast.control.records import Record

QUEUE: Final = 20_000  # records
BATCH: Final = 500
FLUSH_S: Final = 2.0  # how long close() waits for the target
RETRY_S: Final = 1.0  # pause after a failed write

# Characters that make a line read differently from what it says: C1 controls, line
# separators, direction marks.  JSON allows them bare; written as \uXXXX they are harmless.
_MISLEADING = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class LogTarget(Protocol):
    """Where lines go.  All methods are called by the writer's thread only."""

    name: str

    def write(self, records: list[tuple[Record, bytes]]) -> int:
        """Write records, each with its JSON line without newline; how many were written.

        OSError when not even the first could be: a partial success is a number, never an error.
        """
        ...

    def reopen(self) -> None: ...
    def close(self) -> None: ...


def render_line(record: Record) -> bytes:
    """One JSON line without newline, readable as it is and free of tricks."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    text = _MISLEADING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    return text.encode("utf-8", errors="backslashreplace")  # a lone surrogate becomes its JSON escape


class LogWriter:
    """Takes records at any rate, writes them in the order they came."""

    def __init__(self, target: LogTarget, report: Callable[[str], None]) -> None:
        """``report`` is called from the writer's thread with a sentence on failure and on recovery."""
        self._target = target
        self._report = report
        self._queue: queue.Queue[Record | None] = queue.Queue(QUEUE)
        self._reopen = threading.Event()
        self._closing = threading.Event()
        self._failing = False
        self._lost_in_row = 0
        self.lost = 0  # ever: read by others, written by submit() and the thread
        self._next: LogTarget | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def submit(self, record: Record) -> None:
        """Hand a record over; never waits."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._count_lost(1)

    def reopen(self) -> None:
        """Open the file anew before the next write (after logrotate moved it)."""
        self._reopen.set()

    def switch(self, target: LogTarget) -> None:
        """Write to another target from the next record on; the old one is closed."""
        with self._lock:
            before, self._next = self._next, target
        if before is not None:
            before.close()  # it was never used

    def close(self) -> None:
        """Write what is queued, within FLUSH_S, and end the thread."""
        self._closing.set()
        try:
            self._queue.put(None, timeout=FLUSH_S)
        except queue.Full:
            return  # the target is stuck: the thread is a daemon and ends with the process
        self._thread.join(FLUSH_S)

    def _run(self) -> None:
        ending = False
        while not ending:
            batch, ending = self._take()
            lines = [(record, render_line(record)) for record in batch]
            while lines:
                written = self._write(lines)
                lines = lines[written:]
                if written == 0 and lines:
                    self._count_lost(len(lines))
                    break
        self._target.close()

    def _take(self) -> tuple[list[Record], bool]:
        """Wait for records; at most BATCH of them, and whether the end was asked for."""
        batch: list[Record] = []
        try:
            record = self._queue.get(block=not self._closing.is_set())
        except queue.Empty:
            return batch, True  # close() found no room for its None
        while record is not None:
            batch.append(record)
            if len(batch) >= BATCH:
                return batch, False
            try:
                record = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _take_next_target(self) -> None:
        with self._lock:
            target, self._next = self._next, None
        if target is not None:
            before, self._target = self._target, target
            before.close()

    def _write(self, lines: list[tuple[Record, bytes]]) -> int:
        try:
            self._take_next_target()
            if self._reopen.is_set():
                self._reopen.clear()
                self._target.reopen()
            written = self._target.write(lines)
        except OSError as error:
            self._failed(error)
            return 0
        if self._failing:
            self._recovered()
        return written

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._lost_in_row = 0
            why = error.strerror or str(error) or type(error).__name__
            self._report(f"cannot write the log to {self._target.name}: {why}; traffic goes on, records are lost")
        if not self._closing.is_set():
            time.sleep(RETRY_S)  # do not burn the CPU on a full disk; the queue takes what comes meanwhile

    def _recovered(self) -> None:
        self._failing = False
        self._report(f"the log is written to {self._target.name} again; {self._lost_in_row} records were lost")

    def _count_lost(self, count: int) -> None:
        with self._lock:
            self.lost += count
            self._lost_in_row += count
