"""What `lbfast ha status` tells people."""

from __future__ import annotations

from typing import Any

from lbfast.cli.pairing import render_status
from lbfast.ha.timing import make_timing
from lbfast.ha.verbs import describe_timing
from lbfast.ha.wire import Refusal


def status() -> dict[str, Any]:
    counts = {it.value: number for number, it in enumerate(Refusal, 1)}
    late = {"own_late": 7, "own_late_most_ms": 80, "peer_late": 8, "peer_late_most_ms": 90}
    return {
        "role": "primary",
        "state": "active",
        "level": 4,
        "ready": True,
        "reasons": [],
        "differences": [],
        "maintenance": None,
        "local": "10.0.0.1",
        "peer": {"address": "10.0.0.2", "heard": True, "standing": "passive", "level": 4},
        "replication": {"linked": True, "synced": True, "lag_entries": 0, "lag_ms": 0},
        "paths": [],
        "timing": describe_timing(make_timing(200, 4)),
        "heartbeats": {"accepted": 1000, **counts, **late},
    }


def test_how_long_a_takeover_takes_and_what_became_of_heartbeats() -> None:
    assert render_status(status())[-3:] == [
        "takeover: 700 to 900 ms after the active box dies (a heartbeat every 200 ms, dead after 800 ms without one)",
        "heartbeats: 1000 accepted; ignored: 1 forged, 2 of another version, 3 replayed, 4 doubled by another path, "
        "5 overtaken",
        "delays: 7 here, at most 80 ms; 8 of the peer, at most 90 ms",
    ]
