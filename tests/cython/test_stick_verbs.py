"""The stick table's verbs one by one: finding, expiry, eviction, holds, pins, clearing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from stick_doors import cshim, shared_refs

from lbfast import _shm
from lbfast._stick import StickTable
from lbfast.model.state import Reason

TIMEOUT = 1000


def reserve(table, client, *, refs=None, conn=0, real=1, tag=11, state=cshim.BOUND, now=0):
    return cshim.reserve(table, client, refs, conn, real, tag, state, TIMEOUT, now)


def tiny() -> StickTable:
    return StickTable.create(1)  # one bucket


@pytest.mark.parametrize(
    ("capacity", "places"), [(1, 14), (10, 14), (11, 28), (42, 56), (43, 112), (100_000, 16384 * 14)]
)
def test_capacity_fits_at_three_quarters(capacity: int, places: int) -> None:
    assert StickTable.create(capacity).capacity == places


def test_capacity_out_of_bounds_is_refused() -> None:
    for capacity in (0, 1 << 27):
        with pytest.raises(ValueError, match=str(capacity)):
            StickTable.create(capacity)


def test_get_tells_everything() -> None:
    table = StickTable.create(100)
    assert table.get("10.0.0.1") is None
    assert not table.remove("10.0.0.1")
    assert reserve(table, "10.0.0.1", real=7, tag=70, now=5) == "new"
    cshim.bind(table, "10.0.0.1", 8, 80, cshim.BOUND, Reason.DOWN, 9)
    assert table.get("10.0.0.1") == {
        "client": "10.0.0.1", "real": 8, "tag": 80, "state": "bound", "pinned": False, "reason": Reason.DOWN,
        "holds": 0, "created_ms": 5, "since_ms": 9, "closed_ms": 5, "previous": 7, "previous_reason": Reason.DOWN,
    }  # fmt: skip
    assert table.get("::ffff:10.0.0.1") == table.get("10.0.0.1")
    assert list(table.entries()) == [table.get("10.0.0.1")]
    assert cshim.counters(table, 7) == (1, 0)
    assert cshim.counters(table, 8) == (1, 1)


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.1/32", "fe80::1%eth0", "1.2.3.4\0", "ä"])
def test_no_address_no_entry(text: str) -> None:
    with pytest.raises(ValueError, match="expected an IPv4 or IPv6 address"):
        StickTable.create(1).get(text)


def test_alive_at_the_timeout_gone_after_it() -> None:
    table = tiny()
    reserve(table, "10.0.0.1", now=100)
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 1100) >= 0
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 1101) == -1
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 50) >= 0  # a worker whose clock reading is older
    assert table.sweep(TIMEOUT, 1100, 1) == 0
    assert table.sweep(TIMEOUT, 1101, 1) == 1
    assert len(table) == 0


def test_timer_runs_from_the_last_close() -> None:
    table, refs = tiny(), shared_refs(2)
    reserve(table, "10.0.0.1", refs=refs, conn=0, now=0)
    assert reserve(table, "10.0.0.1", refs=refs, conn=1, now=5000) == "found"  # held: never expires
    cshim.release(table, refs, 0, 6000)
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 10**9) >= 0
    cshim.release(table, refs, 1, 7000)
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 8000) >= 0
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 8001) == -1
    cshim.release(table, refs, 1, 9000)  # twice does nothing
    assert table.get("10.0.0.1")["holds"] == 0
    assert table.get("10.0.0.1")["closed_ms"] == 7000


def test_expired_entry_does_not_return_with_a_longer_timeout() -> None:
    table = tiny()
    reserve(table, "10.0.0.1", real=1, now=0)
    assert reserve(table, "10.0.0.1", real=2, now=2000) == "new"
    assert [entry["real"] for entry in table.entries()] == [2]
    assert cshim.audit(table) == ([], {})


def test_pending_goes_with_its_last_hold() -> None:
    table, refs = tiny(), shared_refs(2)
    reserve(table, "10.0.0.1", refs=refs, conn=0, state=cshim.PENDING)
    assert reserve(table, "10.0.0.1", refs=refs, conn=1, state=cshim.PENDING) == "found"
    cshim.release(table, refs, 0, 1)
    assert table.get("10.0.0.1")["state"] == "pending"
    cshim.release(table, refs, 1, 2)
    assert table.get("10.0.0.1") is None
    assert cshim.counters(table, 1) == (0, 0)


def test_pending_that_nobody_holds_is_not_followed() -> None:
    table = tiny()
    reserve(table, "10.0.0.1", real=1, state=cshim.PENDING)  # its worker died before it took the hold
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 0) == -1
    assert reserve(table, "10.0.0.1", real=2, state=cshim.PENDING) == "new"
    assert len(table) == 1


def test_eviction_takes_the_one_closed_longest_ago() -> None:
    table, refs = tiny(), shared_refs(20)
    for i in range(14):
        reserve(table, f"10.0.0.{i}", refs=refs, conn=i, now=0)
    for i in range(14):
        cshim.release(table, refs, i, 100 + (i * 5) % 14)  # 0 closes first, then 3, 6, 9, 12, 1 ...
    for new, old in enumerate((0, 3, 6, 9, 12, 1)):
        assert reserve(table, f"10.1.0.{new}", refs=refs, conn=14 + new, now=200) == "new"
        assert table.get(f"10.0.0.{old}") is None
    assert len(table) == 14


def test_expired_is_evicted_before_a_live_one() -> None:
    table, refs = tiny(), shared_refs(14)
    for i in range(14):
        reserve(table, f"10.0.0.{i}", refs=refs, conn=i, now=0)
        if i != 5:
            cshim.release(table, refs, i, 2000 + i)
    cshim.release(table, refs, 5, 0)
    assert reserve(table, "10.1.0.1", now=2050) == "new"
    assert table.get("10.0.0.5") is None


def test_full_of_held_and_pinned_entries() -> None:
    table, refs = tiny(), shared_refs(14)
    for i in range(7):
        reserve(table, f"10.0.0.{i}", refs=refs, conn=i)
        table.pin(f"10.1.0.{i}", 3, 33, 0)
    assert reserve(table, "10.2.0.1", now=10**9) == "full"
    with pytest.raises(OSError, match="held or pinned") as caught:
        table.pin("10.2.0.1", 3, 33, 0)
    assert caught.value.errno == errno.ENOSPC
    table.pin("10.0.0.1", 3, 33, 0)  # an entry that is there can be pinned
    cshim.release(table, refs, 0, 10)
    assert reserve(table, "10.2.0.1", now=20) == "new"
    assert cshim.audit(table)[0] == []


def test_pin_keeps_holds_and_survives_binding_and_time() -> None:
    table, refs = tiny(), shared_refs(1)
    reserve(table, "10.0.0.1", refs=refs, real=1, state=cshim.PENDING)
    table.pin("10.0.0.1", 5, 55, 100)
    cshim.bind(table, "10.0.0.1", 1, 11, cshim.BOUND, Reason.NEW, 200)  # the worker's connect to 1 succeeded
    entry = table.get("10.0.0.1")
    assert (entry["real"], entry["tag"], entry["holds"], entry["previous"]) == (5, 55, 1, 1)
    assert (entry["pinned"], entry["state"], entry["reason"]) == (True, "bound", Reason.PINNED)
    cshim.release(table, refs, 0, 300)
    assert table.sweep(TIMEOUT, 10**12, 10) == 0
    assert cshim.find(table, "10.0.0.1", TIMEOUT, 10**12) >= 0
    table.pin("10.0.0.1", 5, 55, 400)
    assert table.get("10.0.0.1")["since_ms"] == 100
    assert cshim.counters(table, 5) == (1, 1)


def test_binding_to_the_same_real_keeps_previous() -> None:
    table = tiny()
    reserve(table, "10.0.0.1", real=1, tag=11, state=cshim.BOUND, now=10)
    cshim.bind(table, "10.0.0.1", 1, 11, cshim.BOUND, Reason.TABLE, 20)
    entry = table.get("10.0.0.1")
    assert (entry["previous"], entry["since_ms"], entry["reason"]) == (-1, 10, Reason.TABLE)
    cshim.bind(table, "10.0.0.1", 1, 12, cshim.BOUND, Reason.NEW, 30)  # another real server in the same slot
    entry = table.get("10.0.0.1")
    assert (entry["previous"], entry["previous_reason"], entry["since_ms"], entry["tag"]) == (-1, Reason.NEW, 30, 12)
    assert cshim.counters(table, 1) == (1, 1)


def test_hold_of_a_former_tenant_changes_nothing() -> None:
    table, refs = tiny(), shared_refs(3)
    reserve(table, "10.0.0.1", refs=refs, conn=0)
    assert table.clear() == 1
    reserve(table, "10.0.0.2", refs=refs, conn=1)
    assert cshim.ref(refs, 0)[:2] == cshim.ref(refs, 1)[:2]  # the same place
    cshim.release(table, refs, 0, 50)
    assert cshim.ref(refs, 0) is None
    assert table.get("10.0.0.2")["holds"] == 1
    reserve(table, "10.0.0.1", refs=refs, conn=0)
    table.remove("10.0.0.1")
    cshim.release(table, refs, 0, 60)  # empty place
    assert cshim.audit(table)[0] == []


def test_clear_by_network_and_real() -> None:
    table = StickTable.create(1000)
    for i in range(40):
        reserve(table, f"10.0.{i % 4}.{i}", real=i % 2, tag=1)
        reserve(table, f"2001:db8:{i % 4}::{i}", real=i % 2, tag=1)
    table.pin("10.0.3.200", 1, 1, 0)
    assert table.counts() == {0: 40, 1: 41}
    assert table.clear("10.0.3.0/24", real=0) == 0
    assert table.clear("10.0.3.0/24", real=1) == 11
    assert table.clear("10.0.2.18") == 1
    assert table.clear("10.0.2.17/31", real=1) == 0
    assert table.clear("2001:db8::/47") == 20
    assert table.clear(real=0) == 9 + 10 + 10
    assert {entry["client"] for entry in table.entries()} == {
        *(f"10.0.1.{i}" for i in range(1, 40, 4)), *(f"2001:db8:3::{i:d}" for i in range(3, 40, 4)),
    }  # fmt: skip
    assert table.clear() == 20
    assert cshim.audit(table) == ([], {})
    for bad in ("10.0.0.0/33", "x"):
        with pytest.raises(ValueError, match=bad):
            table.clear(bad)


def test_attach_sees_the_same_table() -> None:
    table = StickTable.create(1000)
    other = StickTable.attach(table.fd)
    assert other.fd != table.fd
    other.pin("10.0.0.1", 1, 2, 3)
    assert table.get("10.0.0.1") == other.get("10.0.0.1") is not None
    assert other.capacity == table.capacity


def test_attach_refuses_other_regions() -> None:
    other = _shm.Region.create("other", 4096, 1)
    with pytest.raises(ValueError, match="kind"):
        StickTable.attach(other.fd)
    empty = _shm.Region.create("stick", 1 << 20, 1)
    with pytest.raises(ValueError, match="0 buckets"):
        StickTable.attach(empty.fd)
    with pytest.raises(TypeError, match="create"):
        StickTable()


def test_untouched_pages_stay_unallocated() -> None:
    table = StickTable.create(1_000_000)  # 128 MiB of buckets
    table.pin("10.0.0.1", 1, 2, 3)
    assert (len(table), table.counts(), len(list(table.entries()))) == (1, {1: 1}, 1)
    assert table.get("10.0.0.2") is None
    table.sweep(1000, 10**9, 10**9)
    table.recover(2**22 + 1)
    table.clear()
    assert os.fstat(table.fd).st_blocks * 512 < 1 << 20


def test_sweep_goes_round() -> None:
    table = StickTable.create(2000)
    for i in range(500):
        reserve(table, f"10.0.{i // 256}.{i % 256}", now=i)
    turns = 0
    while len(table):
        table.sweep(TIMEOUT, 10_000, 16)
        turns += 1
        assert turns <= 256 // 16
    assert table.sweep(TIMEOUT, 10_000, 10**6) == 0


def test_real_tag() -> None:
    assert StickTable.real_tag(bytes(range(1, 17))) == 0x04030201
    assert StickTable.real_tag(bytes(16)) == 1
    with pytest.raises(ValueError, match="3 bytes"):
        StickTable.real_tag(b"abc")


def test_hash_is_siphash_1_3() -> None:
    """CPython hashes bytes with SipHash-1-3; PYTHONHASHSEED makes its key from a published generator."""
    messages = [bytes(range(16)), bytes(16), b"\xff" * 16, b"sixteen bytes !!"]
    script = f"import sys; print(sys.hash_info.algorithm, *(hash(m) for m in {messages!r}))"
    for seed in (0, 1, 4711):
        answer = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert answer[0] == "siphash13"
        key = hash_secret(seed)
        k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
        assert [cshim.siphash(k0, k1, message) for message in messages] == [int(x) % 2**64 for x in answer[1:]]


def hash_secret(seed: int) -> bytes:
    """Python's own documented generator for PYTHONHASHSEED; 0 means zeros."""
    secret = bytearray(16)
    x = seed
    for i in range(16 if seed else 0):
        x = (x * 214013 + 2531011) % 2**32
        secret[i] = x >> 16 & 0xFF
    return bytes(secret)
