"""What of a box is compared with its peer although nobody replicates it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lbfast.config.own import own_words
from lbfast.config.store import parse
from lbfast.ha.local_settings import local_settings
from lbfast.ha.status import BoxFacts, judge_readiness

ROUTES = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 01004D0A 0003 0 0 0 00000000 0 0 0
eth0 00004D0A 00000000 0001 0 0 0 0000FFFF 0 0 0
eth0 0010A8C0 FE004D0A 0003 0 0 0 00FFFFFF 0 0 0
"""
ROUTES6 = (
    f"fd000001{'0' * 24} 20 {'0' * 32} 00 fe80{'0' * 27}1 00000400 1 0 00000003 eth0\n"
    f"fd000002{'0' * 24} 20 {'0' * 32} 00 fe80{'0' * 27}1 00000400 1 0 00040003 eth0\n"
    f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}1 00000400 1 0 00000003 eth0\n"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on paper."""
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    files = {
        "etc/resolv.conf": "# by hand\nnameserver 10.0.0.53\nsearch trust.example\nnameserver 10.0.1.53\n",
        "etc/chrony/chrony.conf": "driftfile /x\nserver time.trust.example iburst\npool 10.0.0.9\n",
        "etc/systemd/timesyncd.conf": "[Time]\nNTP=10.0.0.8\n",
        "proc/net/route": ROUTES,
        "proc/net/ipv6_route": ROUTES6,
        "proc/sys/kernel/osrelease": "6.1.0-1\n",
        "proc/sys/net/core/somaxconn": "4096\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/London")
    return tmp_path


def read(root: Path) -> dict[str, str]:
    return local_settings({}, root)


def test_the_name_of_the_machine_says_its_domain_before_the_resolver_does(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box.ward.example")
    assert read(root)["domain"] == "ward.example"


def test_what_is_read(root: Path) -> None:
    assert read(root) == {
        "time zone": "Europe/London",
        "name servers": "10.0.0.53, 10.0.1.53",
        "domain": "trust.example",
        "default gateway": "10.77.0.1",
        "static routes": "192.168.16.0/24 via 10.77.0.254, fd00:1::/32 via fe80::1",
        "kernel": "6.1.0-1",
        "open connections queue (net.core.somaxconn)": "4096",
        "time server (ntp)": "time.trust.example, 10.0.0.9",
    }


def test_the_next_time_service_is_asked_when_the_first_is_not_there(root: Path) -> None:
    (root / "etc/chrony/chrony.conf").unlink()
    assert read(root)["time server (ntp)"] == "10.0.0.8"


def test_what_cannot_be_read_is_left_out(root: Path, tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == {}


def test_what_differs_is_told_and_counts_for_nothing() -> None:
    """Of the web interface neither the address, which is rightly another one, nor a path."""
    texts = (
        'workers = 2\n[web]\naddress = "10.0.0.1"\n',
        'workers = 4\n[log]\ntarget = "syslog"\n[graphs]\nkeep_1m = "2d"\n[web]\naddress = "10.0.0.2"\ntls = false\n',
    )
    here, there = (local_settings(own_words(parse(text).config)) for text in texts)
    found = judge_readiness(
        passive=BoxFacts(settings=there),
        active=BoxFacts(settings=here),
        peer_heard=True,
        passive_level=4,
        passive_reasons=(),
        is_linked=True,
        is_synced=True,
        lag_ms=0,
    )
    assert found.is_ready
    names = [text.partition(":")[0] for text in found.differences]
    assert names == ["graphs", "log", "web interface", "workers"]
    assert "log: stdout on the active box, syslog on the passive one" in found.differences
    assert "10.0.0" not in " ".join(found.differences[2:])
