"""A real server that nobody probes, and that the passive box has no route to: it is not ready to take over."""

from __future__ import annotations

import pytest
import trustme
from ha_lab import ROUTER, Lab, running_pair
from harness import real_server, render_toml, virtual_service, wait_for

pytestmark = pytest.mark.root

FAR = "10.99.0.1"


def with_far_server(found: Lab) -> str:
    far = virtual_service(8443, [real_server("Archive", 443, FAR)], "Images", "10.77.0.101")
    return found.config() + render_toml({"virtual_service": [far]})


def test_the_passive_box_needs_a_route_to_each_server(ca: trustme.CA) -> None:
    with running_pair("hu", ca, with_far_server) as pair:
        pair.wait_ready()
        pair.ip("b", "route", "delete", "default")
        why = f"there is no route to Archive of Images ({FAR})"
        for name in ("a", "b"):
            wait_for(lambda name=name: why in pair.status(name)["reasons"], 20, f"{name} to say so")
        code, _, err = pair.boxes["b"].cli("ha", "takeover")
        assert code == 1
        assert why in err
        pair.ip("b", "route", "add", "default", "via", ROUTER)
        pair.wait_ready()
