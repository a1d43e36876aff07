"""Slots, and the settings that reach shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lbfast._table import Table
from lbfast.config.ids import KnownIds, assign_ids
from lbfast.config.layout import Layout, ListenerSpec, plan_layout, too_large
from lbfast.config.publish import publish
from lbfast.config.store import parse
from lbfast.model.appliance import Config
from lbfast.model.state import AtLimit, DrainPolicy, Persistence, Scheduler

if TYPE_CHECKING:
    from lbfast._table import RealSettings, ServiceSettings

TEXT = """
[[virtual_service]]
label = "A"
address = "192.0.2.1"
ports = "443,8000-8001"
scheduler = "hash"
persistence = { timeout = "1h", mask_v4 = 24, mask_v6 = 64 }
drain_policy = "while_connected"
at_limit = "fallback"
max_connections = 1000
client_max_connections = 50
client_limit_report_only = true
client_idle_timeout = "1h"
server_idle_timeout = "2h"
connect_timeout = "1s"
half_close_timeout = "3m"
retries = 1
redispatch = false
passive_fall = 0
tcp_keepalive = false
keepalive_idle = "2m"
keepalive_interval = "20s"
keepalive_count = 3
tcp_user_timeout = "90s"
congestion_control = "reno"
send_proxy = "v2"
proxy_timeout = "5s"
source_addresses = ["192.0.2.2", "192.0.2.3"]
allow = ["10.0.0.0/8"]
deny = ["10.9.0.0/16"]
accept_proxy_from = ["10.1.1.1"]
fallback_server = { address = "192.0.2.9", port = 81 }
[[virtual_service.real_server]]
label = "one"
address = "192.0.2.11"
port = 8443
weight = 7
max_connections = 99
slow_start = "30s"
[[virtual_service.real_server]]
label = "two"
address = "2001:db8::12"

[[virtual_service]]
label = "B"
address = "::"
ports = "80"
persistence = { mode = "none" }
[[virtual_service.real_server]]
label = "one"
address = "192.0.2.11"
"""


class FakeTable:
    """The methods that publishing uses, and in which order they were called."""

    def __init__(self, most_services: int = 8, most_reals: int = 8) -> None:
        self.MAX_SERVICES = most_services
        self.MAX_REALS = most_reals
        self.services: dict[int, ServiceSettings] = {}
        self.reals: dict[int, RealSettings] = {}

    def write_service(self, slot: int, settings: ServiceSettings) -> None:
        named = {*settings["reals"], *({settings["fallback"]} - {-1})}
        assert named <= self.reals.keys(), "a service must not name a server that is not there yet"
        self.services[slot] = settings

    def write_real(self, slot: int, settings: RealSettings) -> None:
        self.reals[slot] = settings


@pytest.fixture(name="config")
def make_config() -> Config:
    return assign_ids(parse(TEXT).config, KnownIds())[0]


def test_slots_follow_the_configuration(config: Config) -> None:
    assert plan_layout(config) == Layout(
        services={"A": 0, "B": 1},
        reals={("A", "one"): 0, ("A", "two"): 1, ("A", "fallback"): 2, ("B", "one"): 3},
        listeners=(
            ListenerSpec(0, "A", "192.0.2.1", 443),
            ListenerSpec(0, "A", "192.0.2.1", 8000),
            ListenerSpec(0, "A", "192.0.2.1", 8001),
            ListenerSpec(1, "B", "::", 80),
        ),
    )


def test_every_setting_arrives(config: Config) -> None:
    table = FakeTable()
    publish(table, config, plan_layout(config))
    service = config.virtual_services[0]
    assert service.id is not None
    assert table.services[0] == {
        "id": service.id.bytes,
        "scheduler": Scheduler.HASH,
        "persistence": Persistence.SOURCE_IP,
        "persistence_timeout_ms": 3_600_000,
        "mask_v4": 24,
        "mask_v6": 64,
        "drain_policy": DrainPolicy.WHILE_CONNECTED,
        "at_limit": AtLimit.FALLBACK,
        "max_connections": 1_000,
        "client_limit": 50,
        "client_limit_report_only": True,
        "client_idle_ms": 3_600_000,
        "server_idle_ms": 7_200_000,
        "connect_timeout_ms": 1_000,
        "half_close_ms": 180_000,
        "retries": 1,
        "redispatch": False,
        "passive_fall": 0,
        "keepalive": False,
        "keepalive_idle_s": 120,
        "keepalive_interval_s": 20,
        "keepalive_count": 3,
        "user_timeout_ms": 90_000,
        "congestion": "reno",
        "send_proxy": 2,
        "proxy_timeout_ms": 5_000,
        "reals": [0, 1],
        "fallback": 2,
        "sources": ("192.0.2.2", "192.0.2.3"),
        "allow": ("10.0.0.0/8",),
        "deny": ("10.9.0.0/16",),
        "accept_proxy_from": ("10.1.1.1/32",),
    }
    assert (table.services[1]["persistence"], table.services[1]["fallback"]) == (Persistence.NONE, -1)
    one, two, fallback = (table.reals[slot] for slot in range(3))
    identity = service.real_servers[0].id
    assert identity is not None
    assert one == {
        "id": identity.bytes,
        "service": 0,
        "address": "192.0.2.11",
        "port": 8443,
        "weight": 7,
        "max_connections": 99,
        "slow_start_ms": 30_000,
        "is_fallback": False,
    }
    assert (two["address"], two["port"], two["weight"], two["is_fallback"]) == ("2001:db8::12", 0, 100, False)
    assert (fallback["address"], fallback["port"], fallback["is_fallback"]) == ("192.0.2.9", 81, True)
    assert table.reals[3]["service"] == 1


def test_the_table_in_shared_memory_takes_it_all(config: Config) -> None:
    table = Table.create()
    layout = plan_layout(config)
    publish(table, config, layout)
    real = table.real(layout.reals["A", "one"])
    assert (real["address"], real["port"], real["weight"], real["max_connections"]) == ("192.0.2.11", 8443, 7, 99)
    assert table.real(layout.reals["A", "two"])["address"] == "2001:db8::12"
    service = table.service(0)
    assert (service["enabled"], service["reals"], service["fallback"]) == (True, [0, 1], 2)
    publish(table, config, layout)
    assert table.service(0)["reals"] == [0, 1], "publishing the same again changes nothing"


def test_identities_must_be_there() -> None:
    config = parse(TEXT).config
    with pytest.raises(ValueError, match="A / one has no id"):
        publish(FakeTable(), config, plan_layout(config))


def test_what_does_not_fit_is_refused_before_anything_is_written(config: Config) -> None:
    layout = plan_layout(config)
    assert too_large(layout, 2, 4) is None
    for table, reason in (
        (FakeTable(most_services=1), "2 virtual services, where the table holds 1"),
        (FakeTable(most_reals=3), "4 real and fallback servers, where the table holds 3"),
    ):
        with pytest.raises(ValueError, match=reason):
            publish(table, config, layout)
        assert not table.reals
