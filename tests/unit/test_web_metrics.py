"""The metrics: Prometheus reads them, names keep to its conventions, dashboard and rules ask for what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from control_world import World
from prometheus_client.parser import text_string_to_metric_families

from lbfast.web.metrics import render

TOP = Path(__file__).parents[2]
LABEL = 'a "quoted" \\ label'


def scrape(tmp_path: Path, label: str = LABEL) -> str:
    world = World(tmp_path)
    statistics, overview = world.call("statistics"), world.call("overview")
    for report in (statistics, overview):
        report["virtual_services"][0]["label"] = label
    history = {"version": 7, "unconfirmed": None}
    return render(statistics, overview, {"version": "0.1"}, history).decode()


def test_prometheus_reads_it_and_a_label_is_only_a_label(tmp_path: Path) -> None:
    families = {family.name: family for family in text_string_to_metric_families(scrape(tmp_path))}
    (version,) = families["lbfast_configuration_version"].samples
    assert version.value == 7
    services = {sample.labels["service"] for sample in families["lbfast_service_connections"].samples}
    assert LABEL in services
    assert {sample.value for sample in families["lbfast_real_up"].samples} <= {0.0, 1.0}


def test_names_keep_to_the_conventions(tmp_path: Path) -> None:
    for family in text_string_to_metric_families(scrape(tmp_path)):
        assert re.fullmatch(r"lbfast_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert set(sample.labels) <= {"service", "real", "worker", "state", "why", "version"}


def test_a_service_is_in_one_state(tmp_path: Path) -> None:
    states: dict[str, float] = {}
    for family in text_string_to_metric_families(scrape(tmp_path)):
        for sample in family.samples if family.name == "lbfast_service_state" else ():
            states[sample.labels["service"]] = states.get(sample.labels["service"], 0) + sample.value
    assert set(states.values()) == {1.0}


def test_dashboard_and_rules_ask_for_what_there_is(tmp_path: Path) -> None:
    there = set(re.findall(r"^(?:# TYPE )?(lbfast_\w+)", scrape(tmp_path), re.MULTILINE))
    dashboard: Any = json.loads((TOP / "packaging/grafana/lbfast.json").read_text())
    rules = (TOP / "packaging/prometheus/lbfast.rules.yml").read_text()
    asked = set(re.findall(r"\b(lbfast_\w+)", json.dumps(dashboard["panels"]) + rules))
    assert asked
    assert asked <= there
    documented = (TOP / "docs/api.md").read_text()
    assert "lbfast_real_up" in documented
