"""The configuration files of lbfast and its rivals, each as an expert would set it up for the same work: pure text.

All of them relay TCP, keep a client on its server by its address where they can, probe the server every four seconds
where they can, wait four seconds for a connect and twelve hours for a silent connection.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# 20,000 descriptors a process: two a connection, two a pipe, some to spare.
HAPROXY_MAXCONN = 8200
HAPROXY_MAXPIPES = 1000
ENVOY_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class Service:
    """One listening port and the server behind it, both on 127.0.0.1."""

    label: str
    port: int
    target: int


def render_lbfast(services: Sequence[Service], workers: int, log: str) -> str:
    parts = [f"workers = {workers}\n\n[log]\n{log}"]
    parts += [
        f"""
[[virtual_service]]
label = "{service.label}"
address = "127.0.0.1"
ports = "{service.port}"
client_speaks_first = true

  [[virtual_service.real_server]]
  label = "{service.label} server"
  address = "127.0.0.1"
  port = {service.target}
"""
        for service in services
    ]
    return "".join(parts)


def render_haproxy(services: Sequence[Service], threads: int, splice: bool) -> str:
    """``splice-auto`` alone does not splice; these two do.  A listening socket a thread, as the others have."""
    large = "  tune.pipesize 1048576\n" if splice else ""
    options = "  option splice-request\n  option splice-response\n" if splice else ""
    head = f"""global
  nbthread {threads}
  maxconn {HAPROXY_MAXCONN}
  maxpipes {HAPROXY_MAXPIPES}
{large}defaults
  mode tcp
  timeout connect 4s
  timeout client 12h
  timeout server 12h
{options}"""
    return head + "".join(
        f"""listen {service.label}
  bind 127.0.0.1:{service.port} shards by-thread backlog 4096 defer-accept
  stick-table type ip size 100k expire 30m
  stick on src
  balance leastconn
  server {service.label}1 127.0.0.1:{service.target} check inter 4s
"""
        for service in services
    )


def render_nginx_stream(services: Sequence[Service], workers: int, module: str | None) -> str:
    """``module``: the file to load when stream is not built in."""
    load = f"load_module {module};\n" if module else ""
    blocks = "".join(
        f"""  upstream {service.label} {{ hash $remote_addr consistent; server 127.0.0.1:{service.target}; }}
  server {{ listen 127.0.0.1:{service.port} reuseport backlog=4096; proxy_pass {service.label}; }}
"""
        for service in services
    )
    return f"""{load}user root;
worker_processes {workers};
daemon off;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 18000; }}
stream {{
  proxy_connect_timeout 4s;
  proxy_timeout 12h;
  proxy_half_close on;
{blocks}}}
"""


def render_envoy(services: Sequence[Service]) -> str:
    """The number of workers is its --concurrency."""
    return json.dumps(
        {
            "static_resources": {
                "listeners": [_envoy_listener(service) for service in services],
                "clusters": [_envoy_cluster(service) for service in services],
            }
        },
        indent=1,
    )


def _envoy_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_listener(service: Service) -> dict[str, Any]:
    relay = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": service.label,
        "cluster": service.label,
        "idle_timeout": "43200s",
        "hash_policy": [{"source_ip": {}}],
    }
    return {
        "name": service.label,
        "address": _envoy_address(service.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": relay}]}],
    }


def _envoy_cluster(service: Service) -> dict[str, Any]:
    server = {"endpoint": {"address": _envoy_address(service.target)}}
    limits = ("max_connections", "max_pending_requests", "max_requests")
    return {
        "name": service.label,
        "type": "STATIC",
        "connect_timeout": "4s",
        "lb_policy": "MAGLEV",
        "load_assignment": {"cluster_name": service.label, "endpoints": [{"lb_endpoints": [server]}]},
        # Its defaults (1,024 of each) are a protection, and would refuse most of the idle connections.
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, ENVOY_NO_LIMIT)]},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "4s",
                "healthy_threshold": 1,
                "unhealthy_threshold": 2,
                "tcp_health_check": {},
            }
        ],
    }
