"""/metrics for Prometheus: what lbfast counts, by the conventions of its names.

The figures come from shared memory that outlives workers: a worker's death resets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lbfast.web.api_common import problem
from lbfast.web.auth import identity_of, require, state_of
from lbfast.web.client import ControlError, ControlUnavailable
from lbfast.web.state import WebState

Report = dict[str, Any]

STATES: Final = ("checking", "up", "drain", "down", "halt")
SERVICE_STATES: Final = ("up", "degraded", "checking", "drained", "down")

# name without lbfast_, help, key of the statistics
_WORKER_COUNTERS: Final = (
    ("worker_accepted_connections", "Connections accepted.", "accepted"),
    ("worker_accept_errors", "Accepts that failed.", "accept_errors"),
    ("worker_no_descriptors", "Times a worker was out of open files.", "no_descriptors"),
    ("worker_no_memory", "Times a worker was out of memory.", "no_memory"),
    ("worker_no_ports", "Connects that found no free source port.", "no_ports"),
    ("worker_no_pipes", "Times bulk was copied for want of a pipe.", "no_pipes"),
    ("worker_unstored_clients", "Clients served without an entry, the persistence table being full.", "stick_full"),
    ("worker_copied_bytes", "Bytes relayed by copying.", "copied_bytes"),
    ("worker_spliced_bytes", "Bytes relayed by splice.", "spliced_bytes"),
)
_SERVICE_COUNTERS: Final = (
    ("service_accepted_connections", "Connections accepted.", "accepted"),
    ("service_denied_connections", "Connections refused by allow and deny lists.", "denied"),
    ("service_limited_connections", "Connections beyond max_connections.", "limited"),
    ("service_client_limited_connections", "Connections beyond client_max_connections.", "client_limited"),
    ("service_refused_connections", "Connections that never reached a real server, for other reasons.", "refused"),
)
_REAL_COUNTERS: Final = (
    ("real_opened_connections", "Connections made to the real server.", "opened"),
    ("real_connect_failures", "Connects to the real server that failed.", "connect_failures"),
    ("real_received_bytes", "Bytes from clients to the real server.", "bytes_in"),
    ("real_sent_bytes", "Bytes from the real server to clients.", "bytes_out"),
)


def routes(_state: WebState) -> list[BaseRoute]:
    return [Route("/metrics", metrics, methods=["GET"])]


@require("report", quiet=True)
async def metrics(request: Request) -> Response:
    client, by = state_of(request).client, identity_of(request).by
    try:
        statistics = await client.call("statistics", by)
        overview = await client.call("overview", by)
        version = await client.call("version", by)
        history = await client.call("history", by)
    except (ControlError, ControlUnavailable) as error:
        return problem(503, str(error), "unavailable")
    text = render(statistics, overview, version, history)
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})


def render(statistics: Report, overview: Report, version: Report, history: Report) -> bytes:
    """The text of one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found(_families(statistics, overview, version, history)))
    return generate_latest(registry)


class _Found(Collector):
    """Families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(statistics: Report, overview: Report, version: Report, history: Report) -> Iterator[Metric]:
    info = GaugeMetricFamily("lbfast_info", "The running lbfast.", labels=["version"])
    info.add_metric([str(version["version"])], 1)
    yield info
    yield _gauge("configuration_version", "Number of the running configuration.", history["version"])
    yield _gauge(
        "configuration_unconfirmed", "A commit waits to be confirmed.", int(history["unconfirmed"] is not None)
    )
    yield from _of_workers(statistics["workers"])
    yield from _of_services(statistics["virtual_services"], overview["virtual_services"])
    yield from _of_reals(statistics["virtual_services"], overview["virtual_services"])
    events = CounterMetricFamily("lbfast_unlogged_events", "Events that the log does not have.", labels=["why"])
    for why, count in statistics["events"].items():
        events.add_metric([why], count)
    yield events


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lbfast_{name}", help, value=value)


def _of_workers(workers: list[Report]) -> Iterator[Metric]:
    for name, help, key in _WORKER_COUNTERS:
        family = CounterMetricFamily(f"lbfast_{name}", help, labels=["worker"])
        for worker in workers:
            family.add_metric([str(worker["index"])], worker[key])
        yield family
    for name, help, key in (
        ("worker_connections", "Open connections.", "connections"),
        ("worker_pipes", "Pipes in use.", "pipes"),
    ):
        gauge = GaugeMetricFamily(f"lbfast_{name}", help, labels=["worker"])
        for worker in workers:
            gauge.add_metric([str(worker["index"])], worker[key])
        yield gauge
    silent = GaugeMetricFamily("lbfast_worker_silent_seconds", "Since the last turn of the loop.", labels=["worker"])
    for worker in workers:
        if worker["silent_ms"] is not None:
            silent.add_metric([str(worker["index"])], worker["silent_ms"] / 1_000)
    yield silent


def _of_services(counted: list[Report], shown: list[Report]) -> Iterator[Metric]:
    for name, help, key in _SERVICE_COUNTERS:
        family = CounterMetricFamily(f"lbfast_{name}", help, labels=["service"])
        for service in counted:
            family.add_metric([service["label"]], service[key])
        yield family
    connections = GaugeMetricFamily("lbfast_service_connections", "Open connections.", labels=["service"])
    entries = GaugeMetricFamily("lbfast_service_persistence_entries", "Clients remembered.", labels=["service"])
    state = GaugeMetricFamily("lbfast_service_state", "1 for the state it has.", labels=["service", "state"])
    for service in shown:
        connections.add_metric([service["label"]], service["connections"])
        if service["persistence_entries"] is not None:
            entries.add_metric([service["label"]], service["persistence_entries"])
        for word in SERVICE_STATES:
            state.add_metric([service["label"], word], int(service["state"] == word))
    yield from (connections, entries, state)


def _of_reals(counted: list[Report], shown: list[Report]) -> Iterator[Metric]:
    labels = ["service", "real"]
    for name, help, key in _REAL_COUNTERS:
        family = CounterMetricFamily(f"lbfast_{name}", help, labels=labels)
        for service in counted:
            for real in service["real_servers"]:
                family.add_metric([service["label"], real["label"]], real[key])
        yield family
    connections = GaugeMetricFamily("lbfast_real_connections", "Open connections.", labels=labels)
    weight = GaugeMetricFamily("lbfast_real_weight", "Weight.", labels=labels)
    clients = GaugeMetricFamily("lbfast_real_clients", "Clients remembered.", labels=labels)
    up = GaugeMetricFamily("lbfast_real_up", "1 when its health checks say up.", labels=labels)
    state = GaugeMetricFamily("lbfast_real_state", "1 for the state it has.", labels=[*labels, "state"])
    for service in shown:
        for real in [*service["real_servers"], *([service["fallback_server"]] if "fallback_server" in service else [])]:
            names = [service["label"], real["label"]]
            connections.add_metric(names, real["connections"])
            weight.add_metric(names, real["weight"])
            if real["clients"] is not None:
                clients.add_metric(names, real["clients"])
            up.add_metric(names, int(real["health"] == "up"))
            for word in STATES:
                state.add_metric([*names, word], int(real["state"] == word))
    yield from (connections, weight, clients, up, state)
