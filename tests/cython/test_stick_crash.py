"""Death inside the stick table: at every instruction of every change, at random under load, and late recovery."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest
from stick_doors import cshim, held_places, shared_refs

from lbfast._stick import StickTable

GONE = 2**22 + 7  # beyond the kernel's largest pid


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child that does nothing else; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def recover(table: StickTable, pid: int, refs) -> int:
    """As the supervisor does it for a dead worker, up to giving back its holds."""
    unlocked, conn, held = cshim.recover(table, pid)
    if conn is not None:
        cshim.set_held(refs, conn, held)
    return unlocked


def give_back(table: StickTable, refs) -> None:
    for conn in range(len(refs) // cshim.REF_SIZE):
        cshim.release(table, refs, conn, 0)


def dead_pid() -> int:
    pid = in_child(lambda: None)
    reap(pid)
    return pid


def prepare(verb: str):
    """A one-bucket table in which the verb has work to do for 10.9.9.9 and connection 0."""
    table, refs = StickTable.create(1), shared_refs(20)
    others = 14 if verb == "evict" else 5
    for i in range(others):
        cshim.reserve(table, f"10.0.0.{i}", refs, 1 + i, 1, 11, cshim.BOUND, 1000, 0)
    cshim.release(table, refs, 3, 5)
    if verb not in ("insert", "evict"):
        state = cshim.PENDING if verb == "release_pending" else cshim.BOUND
        hold = refs if verb.startswith("release") else None
        cshim.reserve(table, "10.9.9.9", hold, 0, 1, 11, state, 1000, 0)
    return table, refs


def state_of(table: StickTable, refs) -> tuple[object, object]:
    return sorted(map(str, table.entries())), cshim.ref(refs, 0)


@pytest.mark.parametrize("verb", cshim.STEPS)
def test_death_at_every_instruction(verb: str) -> None:
    """The child is stopped after each instruction; a copy of the memory at that moment must recover to the state
    before or after one of its complete changes, with holds, counters and the connection's record in agreement."""
    table, refs = prepare(verb)
    copy, copied_refs = StickTable.create(1), shared_refs(20)
    seen = []
    try:
        pid = cshim.step_start(table, verb, "10.9.9.9", refs, 10)
    except PermissionError as error:
        pytest.skip(str(error))
    steps = locked = 0
    running = True
    try:
        while running:
            cshim.copy_table(table, copy)
            copied_refs[:] = refs[:]
            locked += recover(copy, pid, copied_refs)
            wrong, holds = cshim.audit(copy)
            assert wrong == [], f"after {steps} instructions"
            assert Counter(held_places(copied_refs)) == Counter(holds), f"after {steps} instructions"
            now = state_of(copy, copied_refs)
            if not seen or seen[-1] != now:
                seen.append(now)
            running = cshim.step(pid)
            steps += 1
    finally:
        if running:
            kill(pid)
    assert locked > 30  # the walk did see it inside the lock
    # insert + hold and evict + insert + hold are several complete changes, each of the others is one
    assert len(seen) == {"hold": 2, "evict": 4}.get(verb, 2)
    assert cshim.audit(table)[0] == []
    assert state_of(table, refs) == seen[-1]


@pytest.mark.parametrize("held", [False, True])
def test_half_written_entry_is_undone(held: bool) -> None:
    table, refs = StickTable.create(1), shared_refs(2)
    cshim.reserve(table, "10.0.0.1", refs, 0, 1, 11, cshim.BOUND, 1000, 0)
    before = table.get("10.0.0.1")
    conn = 0 if held else 1
    pid = in_child(lambda: cshim.die_inside(table, "10.0.0.1", refs, conn))
    assert reap(pid) == 9
    assert cshim.recover(table, pid) == (1, conn, int(held))
    assert cshim.recover(table, pid) == (0, None, 0)
    cshim.set_held(refs, conn, held)
    assert table.get("10.0.0.1") == before
    assert cshim.audit(table) == ([], {cshim.ref(refs, 0): 1})


def test_waiter_recovers_by_itself_and_leaves_a_note() -> None:
    table, refs = StickTable.create(1), shared_refs(1)
    cshim.reserve(table, "10.0.0.1", refs, 0, 1, 11, cshim.BOUND, 1000, 0)
    before = table.get("10.0.0.1")
    pid = in_child(lambda: cshim.die_inside(table, "10.0.0.1", refs, 0))
    reap(pid)
    start = time.monotonic()
    assert table.get("10.0.0.1") == before
    assert 0.19 < time.monotonic() - start < 5
    assert cshim.recover(table, pid) == (0, 0, 1)  # nothing to unlock, but the connection is told
    assert cshim.recover(table, pid) == (0, None, 0)


def test_recoverer_that_dies_too_passes_the_first_death_on() -> None:
    table, refs = StickTable.create(1), shared_refs(1)
    cshim.reserve(table, "10.0.0.1", refs, 0, 1, 11, cshim.BOUND, 1000, 0)
    first = in_child(lambda: cshim.die_inside(table, "10.0.0.1", refs, 0))
    reap(first)
    second = dead_pid()
    cshim.set_lock(table, 0, second)  # took the lock over and died before it undid anything
    assert cshim.recover(table, second) == (1, None, 0)
    assert cshim.recover(table, first) == (0, 0, 1)
    cshim.set_held(refs, 0, 1)
    assert cshim.audit(table) == ([], {cshim.ref(refs, 0): 1})


def test_notes_are_bounded_and_not_doubled() -> None:
    table = StickTable.create(1)
    for _ in range(3):
        cshim.leave_note(table, 100, 5, 1)
    for i in range(20):
        cshim.leave_note(table, 200 + i, i, 0)
    assert cshim.recover(table, 201) == (0, 1, 0)
    assert cshim.recover(table, 201) == (0, None, 0)
    assert cshim.recover(table, 219) == (0, 19, 0)


def test_lock_of_a_live_but_stopped_process_is_not_broken() -> None:
    table = StickTable.create(1)
    table.pin("10.0.0.1", 1, 11, 0)
    ready, done = os.pipe()

    def lock_and_stop() -> None:
        cshim.lock(table, "10.0.0.1")
        os.write(done, b"x")
        signal.pause()

    pid = in_child(lock_and_stop)
    try:
        os.read(ready, 1)
        cpu = time.process_time()
        with pytest.raises(TimeoutError, match=f"process {pid}"):
            table.get("10.0.0.1")
        assert time.process_time() - cpu < 0.3  # it slept
        assert table.sweep(0, 10**9, 10) == 0
        assert len(table) == 1
        assert table.counts() == {1: 1}
    finally:
        os.kill(pid, signal.SIGKILL)
        reap(pid)
        os.close(ready)
        os.close(done)
    assert table.recover(pid) == 1
    assert table.get("10.0.0.1")["pinned"]


def test_counters_left_wrong_by_a_death_are_recounted() -> None:
    table = StickTable.create(100)
    table.pin("10.0.0.1", 4, 44, 0)
    cshim.skew(table, 5, 4, -3)
    assert cshim.counters(table, 4) == (6, -2)
    assert table.recover(GONE) == 0
    assert cshim.counters(table, 4) == (1, 1)
    cshim.skew(table, -1, 9, 2)
    table.sweep(1000, 0, 1)
    assert cshim.audit(table) == ([], {})


def test_pid_is_fresh_after_fork() -> None:
    table = StickTable.create(1)
    table.pin("10.0.0.1", 1, 11, 0)  # the parent's pid is cached now
    pid = in_child(lambda: cshim.lock(table, "10.0.0.1"))
    assert reap(pid) == 0
    assert table.recover(os.getpid()) == 0
    assert table.recover(pid) == 1


def test_many_processes_on_one_table() -> None:
    table = StickTable.create(30)
    slabs = [shared_refs(64) for _ in range(4)]
    pids = [
        in_child(lambda index=index, refs=refs: cshim.hammer(table, refs, 60, 77 + index, 150_000))
        for index, refs in enumerate(slabs)
    ]
    assert [reap(pid) for pid in pids] == [0] * 4
    wrong, holds = cshim.audit(table)
    assert wrong == []
    check_holds(holds, slabs)
    for refs in slabs:
        give_back(table, refs)
    assert cshim.audit(table) == ([], {})


def check_holds(holds: dict, slabs: list) -> None:
    """Each entry is held by just as many connections as say so; a hold of a former tenant counts for nobody."""
    claimed = Counter(place for refs in slabs for place in held_places(refs))
    assert all(claimed[place] == count for place, count in holds.items()), (claimed, holds)


@pytest.mark.parametrize("capacity", [1, 40])
def test_hundreds_of_kills_under_load(capacity: int) -> None:
    seed = int(os.environ.get("LBFAST_TEST_SEED", "0")) or random.randrange(2**32)
    print(f"LBFAST_TEST_SEED={seed}")
    dice = random.Random(seed)
    table = StickTable.create(capacity)
    unlocked = kills = 0
    deadline = time.monotonic() + 4
    while kills < 160 and (kills < 40 or time.monotonic() < deadline):
        slabs = [shared_refs(32) for _ in range(4)]
        pids = [start_hammer(table, refs, capacity * 3, dice.randrange(2**60)) for refs in slabs]
        alive = dict(zip(pids, slabs, strict=True))
        try:
            wait_for_work(slabs)
            for pid, refs in alive.copy().items():
                del alive[pid]
                kill(pid)
                unlocked += recover(table, pid, refs)  # beside those still hammering
        finally:
            for pid in alive:
                kill(pid)
        kills += len(pids)
        table.recover(pids[-1])
        wrong, holds = cshim.audit(table)
        assert wrong == [], f"after {kills} kills"
        check_holds(holds, slabs)
        for refs in slabs:
            give_back(table, refs)
        assert cshim.audit(table) == ([], {}), f"after {kills} kills"
    assert unlocked > 0, f"{kills} kills and none inside a lock"


def start_hammer(table: StickTable, refs, clients: int, seed: int) -> int:
    return in_child(lambda: cshim.hammer(table, refs, clients, seed, 0))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_for_work(slabs: list) -> None:
    """Until every process holds something: then it is in the middle of it."""
    deadline = time.monotonic() + 20
    while not all(any(refs[:]) for refs in slabs):
        assert time.monotonic() < deadline


def test_tables_come_and_go_quietly() -> None:
    """A program that makes and drops a table says nothing on stderr and leaves no descriptor."""
    program = (
        "import os\nfrom lbfast._stick import StickTable\n"
        "before = set(os.listdir('/proc/self/fd'))\n"
        "for _ in range(50):\n    StickTable.create(10).pin('10.0.0.1', 1, 1, 0)\n"
        "assert set(os.listdir('/proc/self/fd')) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
