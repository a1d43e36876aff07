"""What operators have decided survives: a restart of lbfast, and control killed at any moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import trustme
from harness import Lbfast, free_port, wait_for
from tls_world import NAMES, TlsWorld, homes, sources, visit

from lbfast.control.client import ControlUnavailable
from lbfast.control.protocol import ControlError

ONE, TWO, THREE = NAMES


def test_admin_state_survives_a_restart_of_lbfast(ca: trustme.CA, tmp_path: Path) -> None:
    with TlsWorld(ca) as world:
        port = free_port()
        config = {"workers": 2, "virtual_service": [world.service(port)]}
        with Lbfast(config, directory=tmp_path) as lb:
            _decide(lb)
            before = _settled(lb)
        with Lbfast(config, directory=tmp_path) as lb:
            assert _settled(lb) == before
            _assert_obeyed(lb, world, port)
            lb.call("online", service="Symphony", real=ONE)
            lb.call("persistence_clear", service="Symphony", client="127.0.40.1")
        with Lbfast(config, directory=tmp_path) as lb:
            states = {real["label"]: real["admin"] for real in _reals(lb)}
            assert states == {ONE: "online", TWO: "halt", THREE: "online"}
            assert lb.call("persistence_show", service="Symphony")["count"] == 0


def test_admin_state_survives_a_killed_control(ca: trustme.CA) -> None:
    with TlsWorld(ca) as world:
        port = free_port()
        with Lbfast({"workers": 2, "virtual_service": [world.service(port)]}, allow_stderr=True) as lb:
            _decide(lb)
            before = _settled(lb)
            for _ in range(2):
                old = lb.child("control")
                os.kill(old, signal.SIGKILL)
                lb.wait_replaced("control", old)
                assert _ask_again(lb, "overview")
                assert _settled(lb) == before
            _assert_obeyed(lb, world, port)


def _decide(lb: Lbfast) -> None:
    lb.call("drain", service="Symphony", real=ONE, reason="patch Tuesday")
    lb.call("halt", service="Symphony", real=TWO, reason="smoke")
    lb.call("weight", service="Symphony", real=THREE, weight=42)
    lb.call("persistence_pin", service="Symphony", client="127.0.40.1", real=ONE)


def _assert_obeyed(lb: Lbfast, world: TlsWorld, port: int) -> None:
    """The pinned client goes to the drained server, nobody else does, and the halted one takes nobody."""
    assert homes(visit(port, world.context, ["127.0.40.1"])) == {"127.0.40.1": ONE}
    assert set(homes(visit(port, world.context, sources(10, 41))).values()) == {THREE}
    assert lb.call("explain", service="Symphony", client="127.0.40.1")["reason"] == "pinned"


def _settled(lb: Lbfast) -> list[tuple[Any, ...]]:
    """Admin state, weight and reason (who, when, why) of every server, and the pins."""
    keys = ("label", "admin", "weight", "state", "reason")
    pins = lb.call("persistence_show", service="Symphony", client="127.0.40.1")["entries"]
    return [tuple(real[key] for key in keys) for real in _reals(lb)] + [
        (pin["client"], pin["real"], pin["pinned"]) for pin in pins
    ]


def _reals(lb: Lbfast) -> list[dict[str, Any]]:
    reals: list[dict[str, Any]] = lb.call("overview")["virtual_services"][0]["real_servers"]
    return reals


def _ask_again(lb: Lbfast, verb: str) -> Any:
    def ask() -> Any:
        try:
            return lb.call(verb)
        except (ControlError, ControlUnavailable):
            return None

    return wait_for(ask, 10, f"{verb} to be answered")
